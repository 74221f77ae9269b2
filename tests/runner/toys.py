"""A model that loads in a moment, and methods that misbehave; a plugin like any other, for worker processes too."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.geometry.base import Probe
from qbench.methods.rtn import RoundToNearest
from qbench.spec import Spec

if TYPE_CHECKING:
    import torch

    from qbench.geometry.scene import Findings, Scene
    from qbench.methods.problem import Problem, Solution


class Toy(Spec):
    """Two blocks of two linear layers.

    Attributes
    ----------
    broken_seed : int or None
        The seed whose weights cannot be loaded.
    pause : float
        Seconds that an evaluation takes longer.
    """

    broken_seed: int | None = None
    pause: float = 0.0

    def load(self, seed: int, device: str) -> ToyTask:
        if seed == self.broken_seed:
            raise RuntimeError("the weights are gone\nand so is this line")
        return ToyTask(self, seed, device)

    def prepare(self) -> None:
        pass

    def needs_hub(self) -> bool:
        return False

    def fingerprint(self, seed: int) -> dict[str, str]:
        return {"weights": f"toy {seed}"}


@dataclass(frozen=True)
class Measured:
    metrics: dict[str, float]
    documents: list[tuple[str, int, float]]


class ToyTask:
    def __init__(self, spec: Toy, seed: int, device: str) -> None:
        import torch

        self.spec, self.chance = spec, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            block = [torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8)) for _ in "ab"]
            self.model = torch.nn.Sequential()
            self.model.blocks = torch.nn.ModuleList(block)
        self.calibration = [torch.randn(12, 8, generator=self.chance).to(device) for _ in range(2)]
        self.inputs = torch.randn(20, 8, generator=self.chance).to(device)

    def blocks(self) -> list[tuple[str, torch.nn.Module]]:
        return [(f"blocks.{index}", block) for index, block in enumerate(self.model.blocks)]

    def forward(self, model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        for block in model.blocks:
            batch = block(batch)
        return batch

    def loss(self, model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return (self.forward(model, batch) - batch).square().mean()

    def train_batches(self, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
        import torch

        generator = torch.Generator().manual_seed(seed)
        for _ in count():
            yield torch.randn(batch_size, 8, generator=generator)

    @staticmethod
    def tokens_of(batch: torch.Tensor) -> int:
        return batch.numel()

    def evaluate(self, model: torch.nn.Module, metrics: tuple[str, ...]) -> Measured:
        import torch

        time.sleep(self.spec.pause)
        with torch.no_grad():
            losses = [float(self.loss(model, row[None])) for row in self.inputs]
        documents = [(f"toy/{index}", 5, sum(losses[index::4])) for index in range(4)]
        return Measured({"loss/toy": sum(losses) / len(losses)}, documents)

    def facts(self) -> dict[str, Any]:
        return {"chance_loss": 9.0, "parameters": sum(parameter.numel() for parameter in self.model.parameters())}


class Reader(Probe):
    """Measures the excess of what it reads, and of rounding to nearest."""

    says: float = 1.0

    def measure(self, scene: Scene) -> Findings:
        from qbench.geometry.scene import Findings

        found = {f"{label}/excess": scene.excess_of(label)[0] for label in scene.points}
        return Findings({"rounded": scene.excess(scene.rounded())[0], **found}, {"said": [self.says]})


class Poisoned(Reader):
    def measure(self, scene: Scene) -> Findings:
        found = super().measure(scene)
        found.traces["said"].append(math.nan)
        return found


class Raises(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        raise RuntimeError("no luck today\na second line")


class GivesNaN(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        return _changed(super().solve(problem), lambda found: replace(found, codes=found.codes * math.nan))


class OffGrid(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        return _changed(super().solve(problem), lambda found: replace(found, codes=found.codes + 0.5))


class WrongZeroPoint(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        def moved(found: Any) -> Any:
            return replace(found, grid=replace(found.grid, zero_point=found.grid.zero_point + 0.5))

        return _changed(super().solve(problem), moved)


class LeavesOut(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        found = super().solve(problem)
        return replace(found, layers=dict(list(found.layers.items())[1:]))


class FallsBack(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        return _changed(super().solve(problem), lambda found: replace(found, fallback="rtn: dead layer"))


class TracesTensors(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        import torch

        return replace(super().solve(problem), traces={"train_loss": [torch.tensor(2.5), torch.tensor(math.nan)]})


class Dies(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        os._exit(7)


class Interrupted(RoundToNearest):
    """Gets the Ctrl-C that a terminal sends to every process of a run."""

    def solve(self, problem: Problem) -> Solution:
        os.kill(os.getpid(), signal.SIGINT)
        return super().solve(problem)


class Leaves(RoundToNearest):
    """Wants to end the process."""

    def solve(self, problem: Problem) -> Solution:
        raise SystemExit(3)


class ReturnsNothing(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        return None  # type: ignore[return-value]


class Prints(RoundToNearest):
    """Says something to whoever reads the leaderboard, in Python and past it."""

    def solve(self, problem: Problem) -> Solution:
        print("hello from Python")  # noqa: T201
        os.write(1, b"hello from below\n")
        return super().solve(problem)


class Unsettles(RoundToNearest):
    """Leaves the process with other settings than it found."""

    def solve(self, problem: Problem) -> Solution:
        import torch

        solution = super().solve(problem)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(1)
        return solution


class FinerGrid(RoundToNearest):
    """Gives each weight a scale of its own, so that nothing is lost."""

    def solve(self, problem: Problem) -> Solution:
        import torch

        def fine(layer: Any) -> LayerSolution:
            weight = layer.module.weight.detach()
            grid = BlockGrid(layer.grid.levels, weight.abs().clamp(min=1e-8), torch.zeros_like(weight), 1)
            return LayerSolution(weight.sign().clamp(max=1), grid)

        from qbench.methods.problem import LayerSolution, Solution
        from qbench.quant.block_grid import BlockGrid

        return Solution({layer.name: fine(layer) for layer in problem.layers})


class Spoils(RoundToNearest):
    """Changes what it was not given to change: random state, grids, and the model it owns."""

    def solve(self, problem: Problem) -> Solution:
        import torch

        torch.manual_seed(0)
        found = super().solve(problem)
        with torch.no_grad():
            for parameter in problem.model.parameters():
                parameter.fill_(7)
            for layer in problem.layers:
                layer.module.bias = torch.nn.Parameter(torch.ones(len(layer.module.weight)))
                found.layers[layer.name] = replace(
                    found.layers[layer.name], grid=layer.grid.with_scale(layer.grid.scale.clone())
                )
                layer.grid.scale.fill_(7)
        return found


class Noisy(RoundToNearest):
    """Draws from the global generators of torch, numpy and Python."""

    def solve(self, problem: Problem) -> Solution:
        import random

        import numpy as np
        import torch

        def drawn(found: Any) -> Any:
            levels = found.grid.levels
            codes = torch.randint(levels.quant_min, levels.quant_max + 1, found.codes.shape)
            codes[0, 0] = random.randint(levels.quant_min, levels.quant_max)
            codes[0, 1:] = torch.from_numpy(np.random.randint(levels.quant_min, levels.quant_max, len(codes[0]) - 1))
            return replace(found, codes=codes.to(found.codes.dtype))

        return _changed(super().solve(problem), drawn)


class Waits(RoundToNearest):
    """Take `seconds`; write down the process in `log`, when given."""

    seconds: float = 0.0
    log: Path | None = None

    def solve(self, problem: Problem) -> Solution:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return super().solve(problem)


class Grows(RoundToNearest):
    """Takes memory until something ends the process; not a second time, when `before` is there."""

    before: Path
    most_bytes: int

    def solve(self, problem: Problem) -> Solution:
        if not self.before.exists():
            self.before.touch()
            taken, piece = [], 64 << 20
            while len(taken) * piece < self.most_bytes:
                taken.append(b"x" * piece)
                time.sleep(0.02)
            time.sleep(30)  # whoever watches may look once a second
        return super().solve(problem)


class Holds(RoundToNearest):
    """Waits for a file to appear."""

    until: Path

    def solve(self, problem: Problem) -> Solution:
        while not self.until.exists():
            time.sleep(0.01)
        return super().solve(problem)


class HoldsWithAChild(Holds):
    """Waits in a process of its own, whose number it writes down beside the file."""

    def solve(self, problem: Problem) -> Solution:
        import subprocess
        import sys

        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.until.with_suffix(".pid").write_text(str(child.pid))
        try:
            return super().solve(problem)
        finally:
            child.kill()
            child.wait()


class AsksForMuch(RoundToNearest):
    """Asks torch for more memory than any machine has."""

    def solve(self, problem: Problem) -> Solution:
        import torch

        torch.empty(10**15, device=problem.layers[0].module.weight.device)
        return super().solve(problem)


class AsksForMuchOfNumPy(RoundToNearest):
    def solve(self, problem: Problem) -> Solution:
        import numpy as np

        np.empty(10**15)
        return super().solve(problem)


class RunsOut(RoundToNearest):
    """As Python does where it gets no memory."""

    def solve(self, problem: Problem) -> Solution:
        raise MemoryError


METHODS = {
    "raises": Raises,
    "gives_nan": GivesNaN,
    "off_grid": OffGrid,
    "wrong_zero_point": WrongZeroPoint,
    "leaves_out": LeavesOut,
    "falls_back": FallsBack,
    "traces_tensors": TracesTensors,
    "dies": Dies,
    "leaves": Leaves,
    "returns_nothing": ReturnsNothing,
    "prints": Prints,
    "finer_grid": FinerGrid,
    "interrupted": Interrupted,
    "spoils": Spoils,
    "unsettles": Unsettles,
    "noisy": Noisy,
    "waits": Waits,
    "holds": Holds,
    "holds_with_a_child": HoldsWithAChild,
    "asks_for_much": AsksForMuch,
    "asks_for_much_of_numpy": AsksForMuchOfNumPy,
    "runs_out": RunsOut,
    "grows": Grows,
}


def install() -> None:
    """Make all of it known to suites."""
    from qbench import registry

    registry.MODELS.register("toy", Toy)
    for name, method in METHODS.items():
        registry.METHODS.register(name, method)


def _changed(solution: Solution, change: Any) -> Solution:
    return replace(solution, layers={name: change(found) for name, found in solution.layers.items()})

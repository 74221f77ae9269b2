"""One trial of a method: the tiny problem on one kind of grid, solved once, with what went wrong."""

from __future__ import annotations

import time
from functools import cached_property

import torch
from torch import Tensor

from qbench.conformance import tiny_images
from qbench.conformance.blame import told
from qbench.conformance.contract import MissingError, UnableError
from qbench.conformance.grids import GridKind
from qbench.conformance.surroundings import seeded, settings_kept
from qbench.conformance.tiny_model import make_problem
from qbench.methods.base import Method
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.quant.block_grid import BlockGrid


class Trial:
    """A method on a problem.

    Parameters
    ----------
    method : Method
        The method.
    grid : GridKind
        The kind of grid.
    kind : str
        ``grid``: an ordinary problem; ``ones``: all batches hold one sample; ``silent``: all inputs are 0; ``cuda``: on
        a CUDA device; ``images``: convolutions with batch norm; ``folded``: the same with batch norms folded.
    plain : Trial, optional
        The ordinary trial on the same grid, where this is of another kind.

    Attributes
    ----------
    is_first : bool
        Whether it is the one that what is about the class alone, or is asked twice, is tried on.
    """

    def __init__(self, method: Method, grid: GridKind, kind: str = "grid", plain: Trial | None = None) -> None:
        self.method, self.grid_kind, self.kind, self.plain = method, grid, kind, plain
        self.is_first = False

    def __str__(self) -> str:
        return f"{self.grid_kind.name}, {self.grid_kind.bits} bits"

    @cached_property
    def refusal(self) -> object:
        """What the method says of the grid: None where it takes it."""
        return self.method.refuses_grid(self.grid_kind.quantizer)

    @cached_property
    def outcome(self) -> Outcome:
        """What came of it.

        Raises
        ------
        UnableError
            The method refuses the grid.
        """
        return self.solve()

    def solve(self) -> Outcome:
        """Solve a problem of its own, after seeding all generators as a run does."""
        if self.refusal is not None:
            raise UnableError(f"refused: {self.refusal}")
        return Outcome(self.method, self.problem())

    def problem(self) -> Problem:
        """Return the problem as the method is given it."""
        quantizer, bits = self.grid_kind.quantizer, self.grid_kind.bits
        if self.kind in ("images", "folded"):
            return tiny_images.make_problem(quantizer, bits, folded=self.kind == "folded")
        return make_problem(
            quantizer,
            bits,
            silent=self.kind == "silent",
            device="cuda" if self.kind == "cuda" else "cpu",
            batches=(1, 1, 1) if self.kind == "ones" else (4, 3),
        )

    @property
    def solution(self) -> Solution:
        """The solution, which has a sound type.

        Raises
        ------
        MissingError
            There is none.
        """
        if self.outcome.solution is None:
            raise MissingError("needs a solution, and there is none")
        return self.outcome.solution

    def layers(self) -> list[tuple[str, Tensor, BlockGrid, LayerSolution]]:
        """Return name, matrix, given grid and solution of each layer that was solved."""
        found = self.solution.layers
        return [
            (layer.name, self.outcome.weights[layer.name], self.outcome.grids[layer.name], found[layer.name])
            for layer in self.outcome.problem.layers
            if layer.name in found
        ]


class Outcome:
    """What came of solving a problem.

    Parameters
    ----------
    method : Method
        Is asked at once.
    problem : Problem
        Its own.

    Attributes
    ----------
    raised, wrong_type : str or None
        What went wrong.
    solution : Solution or None
        Where nothing did.
    grids, weights : dict of str to BlockGrid, dict of str to Tensor
        Each layer's grid and weight before the method ran.
    touched : str or None
        What it changed that was not its to change.
    changed_settings : list of str
        The settings of the process that it changed; they were put back.
    seconds : float
        How long it took.
    """

    def __init__(self, method: Method, problem: Problem) -> None:
        self.problem = problem
        self.raised: str | None = None
        self.wrong_type: str | None = None
        self.solution: Solution | None = None
        self.grids = {layer.name: layer.grid.copy() for layer in problem.layers}
        self.weights = {layer.name: layer.matrix().clone() for layer in problem.layers}
        before = {name: value.clone() for name, value in self._others().items()}
        found: object = None
        with settings_kept() as self.changed_settings:
            started = time.perf_counter()
            try:
                with seeded(problem.seed_of("method")):
                    found = method.solve(problem)
            except (Exception, SystemExit) as error:  # a stranger's code can fail in any way
                self.raised = told(error, type(method))
            self.seconds = time.perf_counter() - started
        self.touched = self._touched(before)
        if self.raised is not None:
            return
        self.wrong_type = _wrong_type(found)
        if self.wrong_type is None:
            assert isinstance(found, Solution)
            self.solution = found

    def _others(self) -> dict[str, Tensor]:
        """Return all tensors of the problem that a method has no business to change."""
        targets = {id(layer.module.weight) for layer in self.problem.layers}
        found = {
            name: value.detach()
            for name, value in [*self.problem.model.named_parameters(), *self.problem.model.named_buffers()]
            if id(value) not in targets
        }
        found |= {f"calibration batch {index}": batch for index, batch in enumerate(self.problem.calibration)}
        for layer in self.problem.layers:
            for part in ("scale", "zero_point", "table"):
                if getattr(layer.grid, part) is not None:
                    found[f"the given {part} of {layer.name}"] = getattr(layer.grid, part)
        return found

    def _touched(self, before: dict[str, Tensor]) -> str | None:
        after = self._others()
        changed = [name for name, value in before.items() if name not in after or not torch.equal(value, after[name])]
        if changed:
            return f"{changed[0]} changed"
        new = sorted(set(after) - set(before))
        return f"the model has a new {new[0]}" if new else None


def _wrong_type(found: object) -> str | None:
    if not isinstance(found, Solution):
        return f"solve returned {type(found).__name__} (allowed: Solution)"
    if not isinstance(found.layers, dict):
        return f"layers is {type(found.layers).__name__} (allowed: a dict of LayerSolution by layer name)"
    for name, layer in found.layers.items():
        if not isinstance(layer, LayerSolution):
            return f"layer {name!r} is {type(layer).__name__} (allowed: LayerSolution)"
        if not isinstance(layer.codes, Tensor) or not isinstance(layer.grid, BlockGrid):
            kinds = f"{type(layer.codes).__name__} and {type(layer.grid).__name__}"
            return f"layer {name!r} has codes and grid of type {kinds} (allowed: Tensor and BlockGrid)"
    return None

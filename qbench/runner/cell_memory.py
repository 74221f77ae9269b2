"""What any cell needs in memory, told from shapes alone: the estimates of `memory`, and the cells that these leave out.

Beside cells with a method there are full-precision cells, probes, and cells of models that are not to be loaded whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qbench.geometry.base import Probe
from qbench.geometry.curvature import Curvature
from qbench.methods.problem import Problem
from qbench.runner import memory, streamed_memory
from qbench.runner.session import Session
from qbench.runner.targets import make_problem, no_grid
from qbench.spec import Spec
from qbench.suite.cell import Cell
from qbench.tasks.causal_lm import PretrainedLM

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask

_READ_WEIGHTS = 4  # of full precision, the rounded ones, an error between them, and what is in the model for a while
_VECTORS = 3  # as long as all weights, such as a gradient
_FIRST_ORDER, _SECOND_ORDER = 2, 8  # activations kept for a gradient; for the derivative of one, without fused kernels
_ROWS = {True: 32, False: 128}  # the most windows, and images, of an evaluation batch


class ShapeSession(Session):
    """A session on the CPU whose language models of folders and repositories have no weights: shapes are enough."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self._framed: tuple[tuple[Spec, int], LanguageTask] | None = None

    def task(self, cell: Cell) -> Any:
        """Return the cell's task, loading it when it is not the one in hand.

        Raises
        ------
        AssetError
            Its model is not on this machine.
        """
        spec, key = cell.model, (cell.model, cell.seed)
        # A plugin may load its models in a way of its own.
        if cell.is_streamed or not isinstance(spec, PretrainedLM) or type(spec).load is not PretrainedLM.load:
            return super().task(cell)
        if self._framed is None or self._framed[0] != key:
            self._framed = None
            self._framed = key, _framed(spec, cell.seed)
        return self._framed[1]


def bytes_needed(cell: Cell, session: ShapeSession, device: str) -> tuple[int, int]:
    """Return what a cell needs in the memory of the machine, and in that of its GPUs.

    Parameters
    ----------
    cell : Cell
        Any that is not skipped.
    session : ShapeSession
        Keeps the model from one cell to the next.
    device : str
        Where the cell is to run: ``cpu``, ``cuda``, or ``auto``, which may turn out to be either.

    Returns
    -------
    tuple of int
        Bytes on the host and on the device. On a CPU the first holds everything, `memory.PROCESS` for each process
        included, and the second is 0. On a GPU the host has the process and twice the model, as it is read and as it is
        written; of a training that several processes share, the second is for all of their GPUs together. For ``auto``
        each is what it may be at most.

    Raises
    ------
    QBenchError
        The model is not there, or cannot be quantized.
    """
    if cell.is_streamed:
        return _of_streamed(cell, session, device)
    task = session.task(cell)
    found = estimate(cell, make_problem(task, session.model(cell), cell, lambda place: no_grid()))
    processes = memory.PROCESS * (1 + (int(getattr(cell.method, "ranks", 1)) if cell.is_shared else 0))
    on_host = 2 * found.held if device == "cuda" else found.total
    return processes + on_host, 0 if device == "cpu" else found.total


def estimate(cell: Cell, problem: Problem) -> memory.Estimate:
    """Return what a cell needs beside its process, whatever it does.

    Parameters
    ----------
    cell : Cell
        Of a model that is in memory as a whole when it runs.
    problem : Problem
        On the full-precision model, or on one of its shape; its grids do not matter.
    """
    if cell.is_fp:
        return full_precision_memory(problem)
    if isinstance(cell.probe, Probe):
        return probe_memory(problem, cell.probe, len(cell.points))
    return memory.estimate(cell, problem)


def full_precision_memory(problem: Problem) -> memory.Estimate:
    """Return what an evaluation of the full-precision model needs: the model, and the logits of a batch."""
    shapes = memory.ModelShapes(problem)
    return memory.Estimate({"models": shapes.model_bytes, "evaluation": shapes.evaluation}, shapes.model_bytes)


def probe_memory(problem: Problem, probe: Probe, points: int) -> memory.Estimate:
    """Return what a probe needs.

    Parameters
    ----------
    problem : Problem
        On the full-precision model.
    probe : Probe
        Every one is taken to ask for the gradient of an evaluation batch. `Curvature` holds the graph of second
        derivatives over all of its samples.
    points : int
        Cells whose weights it reads.
    """
    shapes = memory.ModelShapes(problem)
    second = isinstance(probe, Curvature)
    rows = probe.samples if isinstance(probe, Curvature) else _ROWS[shapes.is_language]
    numbers = sum(shapes.kept_by_block(rows)) + shapes.logits(rows)
    vectors = _VECTORS + (probe.iterations if isinstance(probe, Curvature) else 0)
    parts = {
        "models": 2 * shapes.model_bytes,
        "weights": 4 * shapes.weights * (_READ_WEIGHTS + points),
        "vectors": 4 * shapes.weights * vectors,
        "derivatives": numbers * shapes.number_bytes * (_SECOND_ORDER if second else _FIRST_ORDER),
        "evaluation": shapes.evaluation,
    }
    return memory.Estimate(parts, shapes.model_bytes)


def _framed(spec: PretrainedLM, seed: int) -> LanguageTask:
    from transformers import AutoConfig, AutoTokenizer

    from qbench.tasks.language import LanguageTask
    from qbench.tasks.streamed_model import build_frame
    from qbench.tasks.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    place, pins = spec.place()
    config = AutoConfig.from_pretrained(place, trust_remote_code=False, **pins)
    tokenizer: Any = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **pins)
    return LanguageTask(build_frame(config, getattr(torch, spec.dtype)), tokenizer, spec.text, spec, seed, "cpu")


def _of_streamed(cell: Cell, session: ShapeSession, device: str) -> tuple[int, int]:
    parts = streamed_memory.peak_of(session.task(cell), cell)
    whole, beside = sum(parts.values()), parts["process"] + parts["hidden_states"]
    return beside if device == "cuda" else whole, 0 if device == "cpu" else whole - beside

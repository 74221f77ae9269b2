"""A training that several processes share: they are started for the cell, watched, and end with it.

The worker keeps the whole model to deploy and to evaluate; the ranks are processes of its own, one a GPU, or on a CPU
as many as are asked for. What a rank finds of its rows it leaves in a file, and the worker puts the rows together.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qbench.errors import CellError, DivergedError
from qbench.methods.fine_tune import FullPrecisionTraining
from qbench.methods.matrices import from_matrix, to_matrix
from qbench.methods.problem import LayerSolution, Problem, Solution, TargetLayer
from qbench.methods.sharding import join_grids, require_shardable
from qbench.methods.training_options import WeightTraining
from qbench.runner import rank, worker
from qbench.runner.identity import PlannedCell
from qbench.runner.meeting import Meeting, with_tensors, without_tensors
from qbench.suite.cell import Cell

# What the others say when one has died comes a moment after it; what they say first is the reason.
_LAST_WORDS_SECONDS = 2.0
_LOOK_SECONDS = 1.0

Found = tuple[dict[str, Tensor], dict[str, Any]]
"""What a rank has left: tensors of its rows, and facts."""


@dataclass(frozen=True)
class Shared:
    """What a training that was shared out took.

    Attributes
    ----------
    seconds : float
        Of the slowest rank, without its start.
    peaks : list of int
        The most memory that each rank had in use, in bytes.
    """

    seconds: float
    peaks: list[int]

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it."""
        return {"ranks": {"count": len(self.peaks), "peak_memory_bytes": self.peaks}}


def solve(cell: Cell, device: str, problem: Problem) -> tuple[Solution, Shared]:
    """Have the ranks run a cell's method.

    Parameters
    ----------
    cell : Cell
        A method's.
    device : str
        ``cpu`` or ``cuda``.
    problem : Problem
        Whole; ranks have its grids.

    Returns
    -------
    Solution, Shared
        Of the whole layers; losses are the mean over the ranks.

    Raises
    ------
    CellError
        The problem cannot be shared out, there are fewer GPUs than ranks, or a rank fails or dies.
    DivergedError
        A rank says that the training diverged.
    """
    found, shared = _run(cell, device, problem)
    layers = {layer.name: _joined(layer, found) for layer in problem.layers}
    _, facts = found[0]
    solution = Solution(layers, train_tokens=facts["train_tokens"], train_steps=facts["train_steps"])
    return replace(solution, traces=facts["traces"]), shared


def train(cell: Cell, device: str, problem: Problem) -> tuple[FullPrecisionTraining, Shared]:
    """Have the ranks train a cell's model in full precision; the problem's model has the weights then; see `solve`."""
    found, shared = _run(cell, device, problem)
    with torch.no_grad():
        for layer in problem.layers:
            rows = [to_matrix(layer.module, tensors[layer.name]) for tensors, _ in found]
            layer.weight.copy_(from_matrix(layer.module, torch.cat(rows)))
    _, facts = found[0]
    return FullPrecisionTraining(facts["train_tokens"], facts["train_steps"], traces=facts["traces"]), shared


def _joined(layer: TargetLayer, found: Sequence[Found]) -> LayerSolution:
    """Return what is found of a layer's rows, one rank's under the other's."""
    name, device, bare = layer.name, layer.weight.device, without_tensors({layer.name: layer.grid})
    codes = [tensors[f"{name}.codes"] for tensors, _ in found]
    grids = [with_tensors(bare, tensors)[name] for tensors, _ in found]
    of_rows = [(len(part), facts["details"][name]) for part, (_, facts) in zip(codes, found, strict=True)]
    rows = sum(count for count, _ in of_rows)
    details = {key: sum(count * own[key] for count, own in of_rows) / rows for key in of_rows[0][1]}
    return LayerSolution(torch.cat(codes).to(device), join_grids(grids, layer.grid).to(device), details=details)


def _run(cell: Cell, device: str, problem: Problem) -> tuple[list[Found], Shared]:
    """Start the ranks, wait for all of them, and return what each has found."""
    assert isinstance(cell.method, WeightTraining)
    count = cell.method.ranks
    if device == "cuda" and torch.cuda.device_count() < count:
        there = torch.cuda.device_count()
        raise CellError(
            f"ranks: {count} needs a GPU for each rank, and torch finds {there} (allowed here: up to {there})"
        )
    require_shardable(problem, count)
    packed, plugins = worker.pack(PlannedCell(cell, {}, ""))
    grids = {layer.name: layer.grid for layer in problem.layers if cell.quantizer is not None}
    threads = max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory(prefix="qbench-ranks-") as folder:
        meeting = Meeting(Path(folder))
        meeting.leave_grids(grids)
        order = rank.Order(packed, plugins, without_tensors(grids), device, threads, count, meeting)
        context, processes = get_context("spawn"), list[SpawnProcess]()
        try:
            for index in range(count):
                processes.append(context.Process(target=rank.serve, args=(order, index), name="qbench rank"))
                processes[-1].start()
            _wait(processes, meeting)
        finally:
            _end(processes)
        found = [meeting.found(index) for index in range(count)]
    return found, Shared(max(facts["seconds"] for _, facts in found), [facts["peak"] for _, facts in found])


def _wait(processes: Sequence[SpawnProcess], meeting: Meeting) -> None:
    """Wait until all ranks have ended well.

    Raises
    ------
    CellError, DivergedError
        One has not.
    """
    deadline: float | None = None
    while waiting := [one.sentinel for one in processes if one.is_alive()]:
        if deadline is not None and time.monotonic() >= deadline:
            break
        connection.wait(waiting, _LOOK_SECONDS)
        if deadline is None and any(one.exitcode for one in processes):
            # The others wait for one that is gone, and need not see that for themselves.
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
    codes = [one.exitcode for one in processes]
    if any(codes) or None in codes:
        raise _reason(codes, meeting)


def _reason(codes: Sequence[int | None], meeting: Meeting) -> CellError | DivergedError:
    """Return why ranks that ended so did: what one says of the cell, before one that was killed, before a bug."""
    said = {index: meeting.last_words(index) for index, code in enumerate(codes) if code}
    of = f"of {len(codes)}"
    for index, words in said.items():
        if words is not None and words.kind == "diverged":
            return DivergedError(words.text)
        if words is not None and words.kind == "failed":
            return CellError(f"rank {index} {of}: {words.text}")
    for index, words in said.items():
        if words is None:
            how = "killed, as the system does where memory runs out, or crashed"
            return CellError(f"rank {index} {of} died without a word: {how} (exit status {codes[index]})")
    index, words = next((index, words) for index, words in said.items() if words is not None)
    return CellError(f"rank {index} {of}: {words.text}")


def _end(processes: Sequence[SpawnProcess]) -> None:
    """End what is still there, and leave no zombie."""
    for one in processes:
        if one.is_alive():
            one.kill()
    for one in processes:
        if one.pid is not None:
            one.join()
            one.close()

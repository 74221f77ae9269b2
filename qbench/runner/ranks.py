"""A training that several processes share: they are started for the cell, watched, and end with it.

The worker keeps the whole model to deploy and to evaluate; the ranks are processes of its own, one a GPU, or on a CPU
as many as are asked for. What a rank finds of its rows it leaves in a file, and the worker puts the rows together.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from qbench.errors import CellError, DivergedError
from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning, FullPrecisionTraining
from qbench.methods.matrices import from_matrix, to_matrix
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.methods.sharding import join_grids, require_shardable
from qbench.runner import rank, worker
from qbench.runner.identity import PlannedCell
from qbench.suite.cell import Cell

# What the others say when one has died comes a moment after it; what they say first is the reason.
_LAST_WORDS_SECONDS = 2.0
_LOOK_SECONDS = 1.0


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


def most_memory(facts: Mapping[str, Any]) -> int:
    """Return the most memory that a rank had in use by the facts of a record; 0 where nothing was shared."""
    return max(facts["ranks"]["peak_memory_bytes"]) if "ranks" in facts else 0


def ranks_of(cell: Cell) -> int:
    """Return how many processes share the training of a cell; 1 where nothing is shared."""
    count: int = getattr(cell.method, "ranks", 1)
    return count


def solve(cell: Cell, device: str, problem: Problem) -> tuple[Solution, Shared | None]:
    """Run a cell's method: here, or by the ranks where it has several.

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
    Solution, Shared or None
        Of the whole layers; losses are the mean over the ranks. None where nothing was shared.

    Raises
    ------
    CellError
        The problem cannot be shared out, there are fewer GPUs than ranks, or a rank fails or dies.
    DivergedError
        A rank says that the training diverged.
    """
    assert isinstance(cell.method, Method)
    if ranks_of(cell) == 1:
        return cell.method.solve(problem), None
    found, shared = _run(cell, device, problem)
    layers = {}
    for layer in problem.layers:
        joined, place = _joined([one.layers[layer.name] for one in found], layer.grid), layer.weight.device
        layers[layer.name] = replace(joined, codes=joined.codes.to(place), grid=joined.grid.to(place))
    return replace(found[0], layers=layers), shared


def train(cell: Cell, device: str, problem: Problem) -> tuple[FullPrecisionTraining, Shared | None]:
    """Train a cell's model in full precision, here or by the ranks; the problem's model has the weights then.

    See `solve`.
    """
    assert isinstance(cell.method, FineTuning)
    if ranks_of(cell) == 1:
        return cell.method.train(problem), None
    found, shared = _run(cell, device, problem)
    with torch.no_grad():
        for layer in problem.layers:
            rows = [to_matrix(layer.module, weights[layer.name]) for _, weights in found]
            layer.weight.copy_(from_matrix(layer.module, torch.cat(rows)))
    training: FullPrecisionTraining = found[0][0]
    return training, shared


def _joined(parts: Sequence[LayerSolution], whole: Any) -> LayerSolution:
    rows = [len(part.codes) for part in parts]
    details = {
        name: sum(part.details[name] * count for part, count in zip(parts, rows, strict=True)) / sum(rows)
        for name in parts[0].details
    }
    grid = join_grids([part.grid for part in parts], whole)
    return LayerSolution(torch.cat([part.codes for part in parts]), grid, details=details)


def _run(cell: Cell, device: str, problem: Problem) -> tuple[list[Any], Shared]:
    """Start the ranks, wait for all of them, and return what each has found."""
    count = ranks_of(cell)
    if device == "cuda" and torch.cuda.device_count() < count:
        there = torch.cuda.device_count()
        raise CellError(
            f"ranks: {count} needs a GPU for each rank, and torch finds {there} (allowed here: 1 to {there})"
        )
    require_shardable(problem, count)
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory(prefix="qbench-ranks-") as folder:
        place = Path(folder)
        torch.save({layer.name: layer.grid.to(cpu) for layer in problem.layers}, rank.grids_at(place))
        packed, plugins = worker.pack(PlannedCell(cell, {}, ""))
        threads = max(1, torch.get_num_threads() // count)
        order = rank.Order(packed, plugins, device, threads, count, place)
        processes: list[BaseProcess] = []
        try:
            for index in range(count):
                processes.append(
                    get_context("spawn").Process(target=rank.serve, args=(order, index), name="qbench rank")
                )
                processes[-1].start()
            _wait(processes, place)
        finally:
            _end(processes)
        found = [torch.load(rank.found_at(place, index), weights_only=False) for index in range(count)]
    seconds, peaks = max(one["seconds"] for one in found), [one["peak"] for one in found]
    return [one["found"] for one in found], Shared(seconds, peaks)


def _wait(processes: Sequence[BaseProcess], place: Path) -> None:
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
        raise _reason(codes, place)


def _reason(codes: Sequence[int | None], place: Path) -> CellError | DivergedError:
    """Return why ranks that ended so did: what one says of the cell, before one that was killed, before a bug."""
    said = {index: rank.last_words(place, index) for index, code in enumerate(codes) if code}
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


def _end(processes: Sequence[BaseProcess]) -> None:
    """End what is still there, and leave no zombie."""
    for one in processes:
        if one.is_alive():
            one.kill()
    for one in processes:
        if one.pid is not None:
            one.join()
            one.close()

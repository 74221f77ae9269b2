"""What runs in the process of a rank: one of several that train a cell's model together."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import distributed

from qbench.errors import CellError, DivergedError, QBenchError
from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.methods.sharding import shard
from qbench.runner import machine, worker
from qbench.runner.session import Session
from qbench.runner.targets import make_problem, no_grid
from qbench.suite.plugins import Plugin
from qbench.tasks import evaluation_fence

if TYPE_CHECKING:
    from qbench.suite.cell import Cell


@dataclass(frozen=True)
class Order:
    """What the ranks of a cell are told.

    Attributes
    ----------
    packed : bytes
        The cell, as `qbench.runner.worker.pack` gives it.
    plugins : tuple of Plugin
        Local plugins whose classes it holds.
    device : str
        ``cpu`` or ``cuda``.
    threads : int
        Threads of each rank.
    count : int
        The ranks.
    place : Path
        A folder for them alone: they meet there, and leave what they have found.
    """

    packed: bytes
    plugins: tuple[Plugin, ...]
    device: str
    threads: int
    count: int
    place: Path


@dataclass(frozen=True)
class LastWords:
    """Why a rank ended.

    Attributes
    ----------
    kind : str
        ``diverged``, ``failed`` (the cell's own fault, or too little memory) or ``error`` (a bug, or that another rank
        is gone).
    text : str
        In one line.
    """

    kind: Literal["diverged", "failed", "error"]
    text: str


def grids_at(place: Path) -> Path:
    """Return where the layers' grids lie for the ranks."""
    return place / "grids"


def found_at(place: Path, rank: int) -> Path:
    """Return where a rank leaves what it has found."""
    return place / f"found-{rank}"


def last_words(place: Path, rank: int) -> LastWords | None:
    """Return why a rank ended; None where it did not say."""
    try:
        return LastWords(**json.loads(_words_at(place, rank).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # killed before, or while it wrote
        return None


def _words_at(place: Path, rank: int) -> Path:
    return place / f"words-{rank}"


def serve(order: Order, rank: int) -> None:
    """Train as one of the ranks, leave what was found, and end; with exit status 1 where that fails."""
    try:
        _serve(order, rank)
    except (Exception, SystemExit) as error:
        kind: Literal["diverged", "failed", "error"] = "failed" if isinstance(error, QBenchError) else "error"
        if isinstance(error, DivergedError):
            kind = "diverged"
        text = worker.in_words(error)
        shortage = machine.memory_shortage(error)
        if shortage is not None:
            kind, text = "failed", shortage
        _words_at(order.place, rank).write_text(json.dumps({"kind": kind, "text": text}), encoding="utf-8")
        # At once: the group that the others have not left would be waited for.
        sys.stderr.flush()
        os._exit(1)


def _serve(order: Order, rank: int) -> None:
    if order.device == "cuda":
        torch.cuda.set_device(rank)
    worker.start(order.device, order.threads)
    for plugin in order.plugins:
        plugin.load()
    machine.settle(order.threads)
    planned = ForkingPickler.loads(order.packed)
    cell: Cell = planned.cell
    session = Session(order.device)
    task = session.task(cell)
    grids = torch.load(grids_at(order.place), weights_only=False)
    model = session.model(cell)
    problem = make_problem(
        task,
        model,
        cell,
        lambda where: no_grid() if cell.quantizer is None else grids[where.name].to(where.weight.device),
    )
    machine.reset_peak_memory(order.device)
    backend = "nccl" if order.device == "cuda" else "gloo"
    store = distributed.FileStore(str(order.place / "meeting"), order.count)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=order.count)
    own = shard(problem, rank, order.count, teacher=getattr(cell.method, "distillation", 0.0) > 0)
    del problem
    # Another seed on each rank: what is dropped out of one's windows is not what is dropped out of another's.
    seed = own.seed_of("method") + rank
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    machine.warm_up(order.device)
    distributed.barrier()
    started = time.monotonic()
    with evaluation_fence.around(task):
        found = _found(cell, own)
    seconds = time.monotonic() - started
    told = {"found": found, "seconds": seconds, "peak": machine.peak_memory(order.device)}
    torch.save(told, found_at(order.place, rank))
    distributed.barrier()
    distributed.destroy_process_group()


def _found(cell: Cell, problem: Problem) -> Any:
    """Return what a rank has to say of its rows, on the CPU."""
    cpu = torch.device("cpu")
    if isinstance(cell.method, FineTuning):
        training = cell.method.train(problem)
        return training, {layer.name: layer.weight.to(cpu, copy=True) for layer in problem.layers}
    assert isinstance(cell.method, Method)
    solution = cell.method.solve(problem)
    if not isinstance(solution, Solution):
        raise CellError(f"the method returned {type(solution).__name__} (allowed: a Solution)")
    layers: dict[str, LayerSolution] = {}
    for layer in problem.layers:
        part = solution.layers[layer.name]
        layers[layer.name] = LayerSolution(part.codes.to(cpu), part.grid.to(cpu), details=part.details)
    return Solution(
        layers,
        train_tokens=solution.train_tokens,
        train_steps=solution.train_steps,
        traces=solution.traces,
    )

"""What runs in the process of a rank: one of several that train a cell's model together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor, distributed

from qbench.errors import CellError, DivergedError, QBenchError
from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning, FullPrecisionTraining
from qbench.methods.problem import Problem, Solution
from qbench.methods.sharding import shard
from qbench.quant.block_grid import BlockGrid
from qbench.runner import machine, worker
from qbench.runner.identity import PlannedCell
from qbench.runner.meeting import LastWords, Meeting, grid_tensors
from qbench.runner.session import Session
from qbench.runner.targets import GridPlace, make_problem, no_grid
from qbench.spec import Spec
from qbench.suite.plugins import Plugin
from qbench.tasks import evaluation_fence


@dataclass(frozen=True)
class Order:
    """What the ranks of a cell are told.

    Attributes
    ----------
    packed : bytes
        The cell, as `qbench.runner.worker.pack` gives it.
    plugins : tuple of Plugin
        Local plugins whose classes it holds.
    grids : dict of str to BlockGrid
        Of the layers, without their tensors; empty in a training without a quantizer.
    device : str
        ``cpu`` or ``cuda``.
    threads : int
        Threads of each rank.
    count : int
        The ranks.
    meeting : Meeting
        Where they meet, and leave what they have found.
    """

    packed: bytes
    plugins: tuple[Plugin, ...]
    grids: dict[str, BlockGrid]
    device: str
    threads: int
    count: int
    meeting: Meeting


def serve(order: Order, rank: int) -> None:
    """Train as one of the ranks, leave what was found, and end; with exit status 1 where that fails."""
    try:
        _serve(order, rank)
    except (Exception, SystemExit) as error:
        order.meeting.say(rank, _words(error))
        sys.stderr.flush()
        # At once: the group that the others have not left would be waited for.
        os._exit(1)


def _words(error: BaseException) -> LastWords:
    shortage = machine.memory_shortage(error)
    if shortage is not None:
        return LastWords("failed", shortage)
    if isinstance(error, DivergedError):
        return LastWords("diverged", worker.in_words(error))
    return LastWords("failed" if isinstance(error, QBenchError) else "error", worker.in_words(error))


def _serve(order: Order, rank: int) -> None:
    if order.device == "cuda":
        torch.cuda.set_device(rank)
    worker.start(order.device, order.threads)
    for plugin in order.plugins:
        plugin.load()
    machine.settle(order.threads)
    planned: PlannedCell = ForkingPickler.loads(order.packed)
    cell, session = planned.cell, Session(order.device)
    task = session.task(cell)
    problem = make_problem(task, session.model(cell), cell, _grids(order))
    machine.reset_peak_memory(order.device)
    backend = "nccl" if order.device == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=order.meeting.store.as_uri(), rank=rank, world_size=order.count)
    own = shard(problem, rank, order.count, teacher=getattr(cell.method, "distillation", 0.0) > 0)
    del problem
    # Another seed on each rank: what is dropped out of one's windows is not what is dropped out of another's.
    machine.seed_everything(own.seed_of("method") + rank)
    machine.warm_up(order.device)
    distributed.barrier()
    started = time.monotonic()
    with evaluation_fence.around(task):
        tensors, facts = _found(cell.method, own)
    facts |= {"seconds": time.monotonic() - started, "peak": machine.peak_memory(order.device)}
    order.meeting.leave_found(rank, tensors, facts)
    distributed.barrier()
    distributed.destroy_process_group()


def _grids(order: Order) -> Callable[[GridPlace], BlockGrid]:
    grids = order.meeting.grids(order.grids) if order.grids else {}
    return lambda place: grids[place.name].to(place.weight.device) if grids else no_grid()


def _found(method: Spec | None, problem: Problem) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train, and return what there is to say of the rank's rows: tensors, and facts that JSON can hold."""
    if isinstance(method, FineTuning):
        training = method.train(problem)
        return {layer.name: layer.weight for layer in problem.layers}, _facts(training)
    assert isinstance(method, Method)
    solution = method.solve(problem)
    if not isinstance(solution, Solution):
        raise CellError(f"the method returned {type(solution).__name__} (allowed: a Solution)")
    tensors = {f"{name}.codes": found.codes for name, found in solution.layers.items()}
    for name, found in solution.layers.items():
        tensors |= grid_tensors(name, found.grid)
    details = {name: found.details for name, found in solution.layers.items()}
    return tensors, _facts(solution) | {"details": details}


def _facts(found: Solution | FullPrecisionTraining) -> dict[str, Any]:
    return {"train_tokens": found.train_tokens, "train_steps": found.train_steps, "traces": found.traces}

"""Execute one cell: from a planned cell to its record."""

from __future__ import annotations

import copy
import math
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qbench import atomic
from qbench.errors import CellError, DivergedError, QBenchError, UnwritableError
from qbench.methods.base import Deployment, Method
from qbench.methods.batch_norm import batch_norms, estimable, recalibrate
from qbench.methods.fine_tune import FineTuning, FullPrecisionTraining
from qbench.methods.layer_inputs import (
    describe_inputs,
    input_ranges,
    installed,
    quantized_inputs,
    static_params,
)
from qbench.methods.problem import Problem, Solution
from qbench.methods.training_options import WeightTraining
from qbench.quant.block_grid import BlockGrid
from qbench.runner import evidence, machine, memory, probing
from qbench.runner.checkpoints import CheckpointFile, Clock, fingerprint
from qbench.runner.handed_over import HandedWatch
from qbench.runner.identity import PlannedCell
from qbench.runner.session import Session
from qbench.runner.targets import GridPlace, left_alone, make_problem, no_grid
from qbench.store.record import Cost, DocumentLosses, Record
from qbench.suite.cell import Cell
from qbench.tasks import evaluation_fence

if TYPE_CHECKING:
    from qbench.runner.ranks import Shared
    from qbench.tasks.evaluation import Evaluation


def execute(
    planned: PlannedCell,
    suite: str,
    session: Session,
    weights_path: Path,
    points: Mapping[str, Path] | None = None,
    checkpoints: CheckpointFile | None = None,
) -> Record:
    """Run one cell and return its record; an error becomes a record too.

    Parameters
    ----------
    planned : PlannedCell
        The cell and its identity.
    suite : str
        The suite that runs it.
    session : Session
        Kept by the worker between cells.
    weights_path : Path
        Where the packed weights go.
    points : mapping of str to Path, optional
        Where those are that a probe reads, by the label of the method.
    checkpoints : CheckpointFile, optional
        What a training of the whole model goes on from, and leaves on the way.

    Raises
    ------
    UnwritableError
        The disk is full, say: no fault of the cell, which must not be recorded as failed.
    """
    record = Record(
        cell_id=planned.cell_id,
        key=planned.key,
        axes=planned.cell.axes(),
        suite=suite,
        status="ok",
        started=_now(),
        environment=machine.describe(session.device),
    )
    machine.reset_peak_memory(session.device)
    clock = Clock(checkpoints, fingerprint(planned.cell_id, record.environment))
    try:
        if planned.cell.is_streamed:
            _measure_streamed(planned.cell, session, record, weights_path)
        elif planned.cell.is_fp:
            _measure_fp(planned.cell, session, record)
        elif planned.cell.is_control:
            _measure_control(planned.cell, session, record, clock)
        elif planned.cell.is_probe:
            _measure_probe(planned.cell, session, record, points or {})
        else:
            _measure_quantized(planned.cell, session, record, weights_path, clock)
    except UnwritableError:
        raise
    except DivergedError as error:
        record.status, record.reason = "diverged", str(error)
    except QBenchError as error:
        record.status, record.reason = "failed", str(error)
    except (Exception, SystemExit) as error:  # a bug in a method or a plugin costs its cell, not the run
        shortage = machine.memory_shortage(error)
        record.status, record.reason = "failed", shortage or f"{type(error).__name__}: {error}".split("\n")[0]
        record.facts["traceback"] = traceback.format_exc()
    of_ranks = record.facts.get("ranks", {}).get("peak_memory_bytes", [])
    record.cost.peak_memory_bytes = max([machine.peak_memory(session.device), *of_ranks])
    record.ended = _now()
    return record


def _measure_fp(cell: Cell, session: Session, record: Record) -> None:
    task = session.task(cell)
    record.facts = task.facts()
    for name, parameter in task.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CellError(f"the model's own {name!r} holds NaN or infinite values")
    _evaluate(task, task.model, cell, record)


def _measure_streamed(cell: Cell, session: Session, record: Record, weights_path: Path) -> None:
    # Here, so that other cells do not come by them: they are in the keys of these alone.
    from qbench.runner import streamed, streamed_moves

    if not cell.is_fp and not getattr(cell.procedure, "streams" if cell.is_probe else "block_by_block", False):
        raise CellError(f"{cell.axes()['method']} needs the whole model in memory (device_map: streamed has one block)")
    task = session.task(cell)
    if cell.is_probe:
        streamed_moves.measure(cell, task, record, weights_path.parent)
        return
    if cell.is_fp:
        found = streamed.measure_full_precision(cell, task, record, weights_path.parent)
    else:
        found = streamed.measure_quantized(cell, task, record, weights_path)
    _put_evaluation(found, record)


def _measure_control(cell: Cell, session: Session, record: Record, clock: Clock) -> None:
    assert isinstance(cell.method, FineTuning)
    task = session.task(cell)
    whole = make_problem(task, session.model(cell), cell, lambda place: no_grid())
    record.facts = _memory_facts(cell, whole, session.device)
    model = copy.deepcopy(session.model(cell))
    problem = replace(make_problem(task, model, cell, lambda place: no_grid()), checkpoints=clock.checkpoints)
    record.facts |= task.facts() | {"trained_layers": len(problem.layers)} | _batch_norm_facts(cell, session)
    machine.seed_everything(problem.seed_of("method"))
    machine.warm_up(session.device)
    clock.start()
    with evaluation_fence.around(task):
        found, shared = _train(cell, session.device, problem)
    record.facts |= clock.facts() if shared is None else shared.facts()
    record.cost = Cost(
        method_seconds=clock.stop() if shared is None else shared.seconds,
        train_tokens=found.train_tokens,
        train_steps=found.train_steps,
    )
    record.traces = found.traces
    model.eval()
    if cell.method.bn == "recalibrate":
        _recalibrate(problem, record)
    _evaluate(task, model, cell, record)


def _train(cell: Cell, device: str, problem: Problem) -> tuple[FullPrecisionTraining, Shared | None]:
    assert isinstance(cell.method, FineTuning)
    if not cell.is_shared:
        return cell.method.train(problem), None
    from qbench.runner import ranks  # here, as above

    return ranks.train(cell, device, problem)


def _solve(cell: Cell, device: str, problem: Problem) -> tuple[Solution, Shared | None]:
    assert isinstance(cell.method, Method)
    if not cell.is_shared:
        return cell.method.solve(problem), None
    from qbench.runner import ranks

    return ranks.solve(cell, device, problem)


def _measure_probe(cell: Cell, session: Session, record: Record, points: Mapping[str, Path]) -> None:
    task = session.task(cell)
    problem = make_problem(
        task, copy.deepcopy(session.model(cell)), cell, lambda place: session.grid(cell, place).copy()
    )
    record.facts = task.facts() | {"grid": evidence.grids(problem)}
    if (plugins := evidence.plugins_of(cell)) is not None:
        record.facts["plugins"] = plugins
    machine.seed_everything(problem.seed_of("method"))
    machine.warm_up(session.device)
    started = time.monotonic()
    found = probing.measure(cell, task, problem, points, session.memory)
    record.cost = Cost(evaluation_seconds=time.monotonic() - started)
    record.metrics, record.traces = found.metrics, found.traces
    probing.require_finite(found)


def _measure_quantized(cell: Cell, session: Session, record: Record, weights_path: Path, clock: Clock) -> None:
    assert isinstance(cell.method, Method)
    task = session.task(cell)

    def grid_of(place: GridPlace) -> BlockGrid:
        # Cells of one quantizer share a grid: a method gets a copy that it cannot spoil for the others.
        return session.grid(cell, place).copy()

    full_precision = session.model(cell)
    whole = make_problem(task, full_precision, cell, lambda place: no_grid())
    record.facts = _memory_facts(cell, whole, session.device)
    # Views of the full-precision model where its type is float32: nobody writes there.
    originals = {layer.name: layer.matrix() for layer in whole.layers}
    problem = make_problem(task, copy.deepcopy(full_precision), cell, grid_of)
    own = make_problem(task, copy.deepcopy(full_precision), cell, grid_of) if cell.trajectory else problem
    watch = probing.trajectory(cell, task, own, problem, session.memory)
    handed = None if watch is None else HandedWatch(watch)
    problem = replace(problem, watch=handed, checkpoints=clock.checkpoints)
    hessians = session.hessians(cell)
    record.facts |= task.facts() | _batch_norm_facts(cell, session)
    record.facts |= {
        "quantized_layers": len(problem.layers),
        "quantized_parameters": sum(weight.numel() for weight in originals.values()),
        "floating_point": evidence.left_in_floating_point(problem),
        "grid": evidence.grids(problem),
    }
    if (plugins := evidence.plugins_of(cell)) is not None:
        record.facts["plugins"] = plugins
    if (inputs := describe_inputs(problem)) is not None:
        record.facts["activations"] = inputs

    machine.seed_everything(problem.seed_of("method"))
    machine.warm_up(session.device)
    clock.start(watch)
    with evaluation_fence.around(task):
        solution, shared = _solve(cell, session.device, problem)
    record.facts |= clock.facts() if shared is None else shared.facts()
    seconds = clock.stop() if shared is None else shared.seconds
    if not isinstance(solution, Solution):
        raise CellError(f"the method returned {type(solution).__name__} (allowed: a Solution)")
    record.cost = Cost(
        method_seconds=seconds,
        calibration_tokens=solution.calibration_tokens,
        train_tokens=solution.train_tokens,
        train_steps=solution.train_steps,
    )
    record.traces = {name: [float(value) for value in curve] for name, curve in solution.traces.items()}
    if watch is not None:
        record.traces |= watch.traces()
    solution.check(problem)
    # The method owned its copy of the model: whatever it changed there beside its codes must not be measured.
    del problem, own, watch, handed
    model = copy.deepcopy(full_precision)
    problem = make_problem(task, model, cell, grid_of)
    with torch.no_grad():
        for layer in problem.layers:
            layer.write(solution.layers[layer.name].weight())
        buffers = dict(model.named_buffers())
        for name, value in solution.statistics.items():
            buffers[name].copy_(value)
    record.layers = evidence.layer_rows(problem, solution, originals, hessians)
    record.effective_bits = evidence.effective_bits(solution, left_alone(task, model, cell))
    record.metrics["weight_sqnr_db"] = evidence.weight_sqnr_db(problem, originals)
    model.eval()
    solution = _calibrated(solution, problem, cell.method, record)
    with installed(quantized_inputs(problem, solution.inputs)):
        _evaluate(task, model, cell, record)
    activations = {layer.name: layer.activations for layer in problem.layers if layer.activations is not None}
    data, record.weights_sha256 = evidence.packed_weights(solution, activations, session.folding(cell))
    atomic.write_bytes(weights_path, data)


def _calibrated(solution: Solution, problem: Problem, method: Method, record: Record) -> Solution:
    """Find what the method has left to be found on the calibration data, in the model with the quantized weights."""
    if not solution.inputs and any(layer.has_static_inputs for layer in problem.layers):
        if method.bn == "recalibrate":
            # Ranges of inputs that are normalised as they will be, not by statistics of other weights.
            _recalibrate(problem, record)
        with _counted(problem, record):
            solution = replace(solution, inputs=static_params(problem, input_ranges(problem)))
    if method.bn == "recalibrate":
        with installed(quantized_inputs(problem, solution.inputs)):
            solution = replace(solution, statistics=_recalibrate(problem, record))
    return solution


def _recalibrate(problem: Problem, record: Record) -> dict[str, Tensor]:
    with _counted(problem, record):
        return recalibrate(problem.model, problem.forward, problem.calibration)


@contextmanager
def _counted(problem: Problem, record: Record) -> Iterator[None]:
    """Count what is done on the calibration data as the method's."""
    started = time.monotonic()
    yield
    record.cost.method_seconds += time.monotonic() - started
    # The same data again for a method that has seen them, new to one that has not.
    record.cost.calibration_tokens = max(record.cost.calibration_tokens, problem.calibration_tokens)


def _memory_facts(cell: Cell, problem: Problem, device: str) -> dict[str, Any]:
    """Return how much memory the cell is expected to need, after making sure that this can be had."""
    if cell.is_shared:
        return {}  # its ranks have memory of their own
    expected = memory.estimate(cell, problem)
    expected.require(memory.free_memory(device), device)
    return {"memory_estimate_bytes": expected.total + (memory.PROCESS if device == "cpu" else 0)}


def _batch_norm_facts(cell: Cell, session: Session) -> dict[str, str | int]:
    """Return what becomes of the batch norms of the model; nothing for a model that has none."""
    assert isinstance(cell.method, Deployment)
    model = session.task(cell).model
    if cell.method.bn == "recalibrate":
        estimable(model)  # before a method works for nothing
    norms = batch_norms(model)
    if not norms:
        return {}
    trained = isinstance(cell.method, WeightTraining) and cell.method.bn_training == "update"
    found: dict[str, str | int] = {
        "bn": "update" if trained and cell.method.bn == "keep" else cell.method.bn,
        "batch_norm_layers": len(norms),
    }
    folding = session.folding(cell)
    return found if folding is None else found | {"folded_batch_norms": len(folding.norms)}


def _evaluate(task: Any, model: nn.Module, cell: Cell, record: Record) -> None:
    started = time.monotonic()
    found = task.evaluate(model, cell.metrics)
    record.cost.evaluation_seconds = time.monotonic() - started
    _put_evaluation(found, record)


def _put_evaluation(found: Evaluation, record: Record) -> None:
    record.metrics |= found.metrics
    record.facts |= getattr(found, "facts", {})  # a task of a plugin may have none to tell
    record.documents = [DocumentLosses(document=d, tokens=n, loss_sum=s) for d, n, s in found.documents]
    if not all(math.isfinite(row.loss_sum) for row in record.documents):
        raise DivergedError("the evaluation loss is NaN or infinite")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

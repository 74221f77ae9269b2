"""Execute one cell: from a planned cell to its record."""

from __future__ import annotations

import copy
import math
import random
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbench import atomic
from qbench.errors import CellError, DivergedError, QBenchError
from qbench.methods.base import Deployment, Method
from qbench.methods.batch_norm import Folding, batch_norms, estimable, fold, recalibrate
from qbench.methods.fine_tune import FineTuning
from qbench.methods.layer_inputs import (
    describe_inputs,
    input_ranges,
    installed,
    quantized_inputs,
    static_params,
)
from qbench.methods.problem import Problem, Solution
from qbench.methods.sequential import full_precision_hessians
from qbench.methods.training_options import WeightTraining
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid, require_same
from qbench.runner import evidence, machine, probing
from qbench.runner.identity import PlannedCell
from qbench.runner.targets import GridPlace, left_alone, make_problem, no_grid
from qbench.spec import Spec
from qbench.store.record import Cost, DocumentLosses, Record
from qbench.suite.cell import Cell


class Session:
    """What a worker keeps between cells: the loaded task, and what depends on the full-precision model alone.

    Parameters
    ----------
    device : str
        Torch device.

    Attributes
    ----------
    memory : dict
        What probes keep for one another while the task is loaded.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._key: tuple[Spec, int] | None = None
        self._task: Any = None
        self._folding: Folding | None = None
        self._hessians: dict[bool, dict[str, Tensor]] = {}
        self._grids: tuple[Any, dict[str, BlockGrid]] = (None, {})
        self.memory: dict[Any, Any] = {}

    def task(self, cell: Cell) -> Any:
        """Return the cell's task, loading it when it is not the one in hand."""
        if self._key != (cell.model, cell.seed):
            self._key, self._task, self._folding, self._hessians, self._grids = None, None, None, {}, (None, {})
            self.memory = {}
            self._task = cell.model.load(cell.seed, self.device)  # type: ignore[attr-defined]
            self._key = (cell.model, cell.seed)
        return self._task

    def folding(self, cell: Cell) -> Folding | None:
        """Return the task's model with its batch norms folded, where the cell's method wants them so; otherwise None.

        Raises
        ------
        CellError
            No batch norm of the model can be folded.
        """
        if not _folds(cell):
            return None
        task = self.task(cell)
        if self._folding is None:
            self._folding = fold(task.model, task.forward, task.calibration)
        return self._folding

    def model(self, cell: Cell) -> nn.Module:
        """Return the full-precision model that the cell starts from; it must stay as it is."""
        folding = self.folding(cell)
        found: nn.Module = self.task(cell).model if folding is None else folding.model
        return found

    def hessians(self, cell: Cell) -> dict[str, Tensor]:
        """Return the second moments of the layers' inputs in the full-precision model that the cell starts from."""
        task = self.task(cell)
        if _folds(cell) not in self._hessians:
            # Of all layers, also those that this cell's quantizer leaves alone: other cells use them too.
            everything = replace(cell, quantizer=None, bits=None)
            problem = make_problem(task, self.model(cell), everything, lambda place: no_grid())
            self._hessians[_folds(cell)] = full_precision_hessians(problem)
        return self._hessians[_folds(cell)]

    def grid(self, cell: Cell, layer: GridPlace) -> BlockGrid:
        """Return the grid of a layer; all methods of one quantizer, bitwidth and way with batch norms get the same.

        Raises
        ------
        CellError
            The quantizer gives no sound grid, or another one when it is asked again.
        """
        assert isinstance(cell.quantizer, Quantizer)
        key = (self._key, cell.quantizer, cell.bits, _folds(cell))
        if self._grids[0] != key:
            self._grids = (key, {})
        if layer.name not in self._grids[1]:
            importance = self._importance(cell, layer) if cell.quantizer.sees_inputs else None
            grid = choose_grid(layer.weight, cell.quantizer, layer.bits, importance)
            if not self._grids[1]:
                # Asked twice once: a rule that draws at random shows it on any layer.
                again = choose_grid(layer.weight, cell.quantizer, layer.bits, importance)
                require_same(grid, again, cell.quantizer)
            self._grids[1][layer.name] = grid
        return self._grids[1][layer.name]

    def _importance(self, cell: Cell, layer: GridPlace) -> Tensor:
        """Return ``E[x_j^2]`` of a layer's inputs, of shape (1 or rows, columns)."""
        squares = self.hessians(cell)[layer.name].diagonal(dim1=1, dim2=2)
        return squares.repeat_interleave(len(layer.weight) // len(squares), dim=0) if len(squares) > 1 else squares


def execute(
    planned: PlannedCell, suite: str, session: Session, weights_path: Path, points: Mapping[str, Path] | None = None
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
    try:
        if planned.cell.is_fp:
            _measure_fp(planned.cell, session, record)
        elif planned.cell.is_control:
            _measure_control(planned.cell, session, record)
        elif planned.cell.is_probe:
            _measure_probe(planned.cell, session, record, points or {})
        else:
            _measure_quantized(planned.cell, session, record, weights_path)
    except DivergedError as error:
        record.status, record.reason = "diverged", str(error)
    except QBenchError as error:
        record.status, record.reason = "failed", str(error)
    except (Exception, SystemExit) as error:  # a bug in a method or a plugin costs its cell, not the run
        record.status, record.reason = "failed", f"{type(error).__name__}: {error}".split("\n")[0]
        record.facts["traceback"] = traceback.format_exc()
    record.cost.peak_memory_bytes = machine.peak_memory(session.device)
    record.ended = _now()
    return record


def _measure_fp(cell: Cell, session: Session, record: Record) -> None:
    task = session.task(cell)
    record.facts = task.facts()
    for name, parameter in task.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CellError(f"the model's own {name!r} holds NaN or infinite values")
    _evaluate(task, task.model, cell, record)


def _measure_control(cell: Cell, session: Session, record: Record) -> None:
    assert isinstance(cell.method, FineTuning)
    task = session.task(cell)
    model = copy.deepcopy(session.model(cell))
    problem = make_problem(task, model, cell, lambda place: no_grid())
    record.facts = task.facts() | {"trained_layers": len(problem.layers)} | _batch_norm_facts(cell, session)
    _seed(problem.seed_of("method"))
    machine.warm_up(session.device)
    started = time.monotonic()
    found = cell.method.train(problem)
    record.cost = Cost(
        method_seconds=time.monotonic() - started, train_tokens=found.train_tokens, train_steps=found.train_steps
    )
    record.traces = found.traces
    model.eval()
    if cell.method.bn == "recalibrate":
        _recalibrate(problem, record)
    _evaluate(task, model, cell, record)


def _measure_probe(cell: Cell, session: Session, record: Record, points: Mapping[str, Path]) -> None:
    task = session.task(cell)
    problem = make_problem(
        task, copy.deepcopy(session.model(cell)), cell, lambda place: session.grid(cell, place).copy()
    )
    record.facts = task.facts() | {"grid": evidence.grids(problem)}
    if (plugins := evidence.plugins_of(cell)) is not None:
        record.facts["plugins"] = plugins
    _seed(problem.seed_of("method"))
    machine.warm_up(session.device)
    started = time.monotonic()
    found = probing.measure(cell, task, problem, points, session.memory)
    record.cost = Cost(evaluation_seconds=time.monotonic() - started)
    record.metrics, record.traces = found.metrics, found.traces
    probing.require_finite(found)


def _measure_quantized(cell: Cell, session: Session, record: Record, weights_path: Path) -> None:
    assert isinstance(cell.method, Method)
    task = session.task(cell)

    def grid_of(place: GridPlace) -> BlockGrid:
        # Cells of one quantizer share a grid: a method gets a copy that it cannot spoil for the others.
        return session.grid(cell, place).copy()

    full_precision = session.model(cell)
    problem = make_problem(task, copy.deepcopy(full_precision), cell, grid_of)
    watch = probing.trajectory(cell, task, make_problem(task, copy.deepcopy(full_precision), cell, grid_of), problem)
    problem = replace(problem, watch=watch)
    originals = {layer.name: layer.matrix().clone() for layer in problem.layers}
    hessians = session.hessians(cell)
    record.facts = task.facts() | _batch_norm_facts(cell, session)
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

    _seed(problem.seed_of("method"))
    machine.warm_up(session.device)
    started = time.monotonic()
    solution = cell.method.solve(problem)
    seconds = time.monotonic() - started - (0.0 if watch is None else watch.seconds)
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
    del problem
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


def _folds(cell: Cell) -> bool:
    return isinstance(cell.method, Deployment) and cell.method.bn == "fold"


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


def _seed(seed: int) -> None:
    """Seed every generator of the process that a method may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _evaluate(task: Any, model: nn.Module, cell: Cell, record: Record) -> None:
    started = time.monotonic()
    found = task.evaluate(model, cell.metrics)
    record.cost.evaluation_seconds = time.monotonic() - started
    record.metrics |= found.metrics
    record.documents = [DocumentLosses(document=d, tokens=n, loss_sum=s) for d, n, s in found.documents]
    if not all(math.isfinite(row.loss_sum) for row in record.documents):
        raise DivergedError("the evaluation loss is NaN or infinite")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""Execute a cell of a model of which one decoder block at a time is in memory: the same numbers as with all of them.

The hidden states of the calibration windows go through the full-precision blocks, for grids and evidence, and, where
the method wants it, once more through the quantized ones. Those of the evaluation windows go through what is deployed.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.base import Method
from qbench.methods.layer_inputs import describe_inputs, installed, quantized_inputs
from qbench.methods.problem import Block, Problem, Solution
from qbench.runner import evidence, machine
from qbench.runner.hidden_states import HiddenStates, Spill
from qbench.runner.packed_writer import PackedWriter
from qbench.runner.streamed_block import numbered
from qbench.runner.streamed_calls import BlockCalls
from qbench.runner.streamed_evaluation import StreamedEvaluation
from qbench.runner.streamed_grids import BlockGrids, light
from qbench.runner.streamed_memory import estimate
from qbench.runner.targets import left_alone
from qbench.seeds import derive_seed
from qbench.store.record import Cost, Record
from qbench.suite.cell import Cell
from qbench.tasks import evaluation_fence
from qbench.tasks.evaluation import Evaluation
from qbench.tasks.streamed_model import StreamedTask


@torch.no_grad()
def measure_full_precision(cell: Cell, task: StreamedTask, record: Record, folder: Path) -> Evaluation:
    """Evaluate the model as it is.

    Parameters
    ----------
    cell : Cell
        The full-precision cell.
    task : StreamedTask
        Its model with its data.
    record : Record
        Gets facts and cost.
    folder : Path
        Where hidden states are spilled.

    Raises
    ------
    CellError
        A parameter is not finite.
    """
    with Spill(folder, task.device) as spill:
        calls = BlockCalls(task)
        record.facts = task.facts() | estimate(task, cell)
        started = time.monotonic()
        for name, parameter in task.model.named_parameters():
            _require_finite(name, parameter)
        evaluation = StreamedEvaluation(task, calls, spill)
        for index, name in enumerate(calls.names):
            with task.streamed.block(name) as block:
                for own, parameter in block.named_parameters():
                    _require_finite(f"{name}.{own}", parameter)
                evaluation.advance(index, block)
            machine.release_memory(task.device)
        found = evaluation.finish(cell.metrics)
        record.cost.evaluation_seconds = time.monotonic() - started
    return found


def _require_finite(name: str, parameter: Tensor) -> None:
    if not parameter.is_meta and not torch.isfinite(parameter).all():
        raise CellError(f"the model's own {name!r} holds NaN or infinite values")


@torch.no_grad()
def measure_quantized(cell: Cell, task: StreamedTask, record: Record, weights_path: Path) -> Evaluation:
    """Quantize the model block by block, and evaluate what is deployed.

    Parameters
    ----------
    cell : Cell
        With a method that works block by block.
    task : StreamedTask
        Its model with its data.
    record : Record
        Gets facts, layers, cost, and the hash of the weights.
    weights_path : Path
        Where the packed weights go; hidden states are spilled beside it.

    Raises
    ------
    CellError
        As the whole model raises it.
    """
    with ExitStack() as stack:
        spill = stack.enter_context(Spill(weights_path.parent, task.device))
        writer = stack.enter_context(PackedWriter(weights_path))
        walk = _Walk(cell, task, record, spill, writer)
        for index in range(len(walk.calls.names)):
            walk.step(index)
            machine.release_memory(task.device)
        walk.describe()
        started = time.monotonic()
        found = walk.evaluation.finish(cell.metrics)
        record.cost.evaluation_seconds += time.monotonic() - started
        record.weights_sha256 = writer.finish()
    return found


@dataclass
class _Sums:
    """What is known of a model when all of its blocks have been gone through."""

    blocks: list[Block] = field(default_factory=list)
    powers: list[tuple[float, float]] = field(default_factory=list)
    stored: int = 0
    weights: int = 0


class _Walk:
    """A cell's way through the blocks of its model."""

    def __init__(self, cell: Cell, task: StreamedTask, record: Record, spill: Spill, writer: PackedWriter) -> None:
        assert isinstance(cell.method, Method)
        self._cell, self._task, self._record, self._writer = cell, task, record, writer
        self._method = cell.method
        self._sums = _Sums()
        record.facts = task.facts() | estimate(task, cell)
        record.cost = Cost()
        self.calls = BlockCalls(task)
        self._full = self.calls.enter(task.calibration, spill)
        self._grids = BlockGrids(cell, task, self.calls, self._full)
        given = cell.method.calibrates_on()
        self._seen: HiddenStates | None = self.calls.enter(task.calibration, spill) if given == "quantized" else None
        started = time.monotonic()
        self.evaluation = StreamedEvaluation(task, self.calls, spill)
        record.cost.evaluation_seconds = time.monotonic() - started
        self._seed = derive_seed("method", cell.model.label(), cell.seed)

    def step(self, index: int) -> None:
        """Quantize a block, and take all hidden states through it."""
        name, is_last = self.calls.names[index], index == len(self.calls.names) - 1
        with self._task.streamed.block(name) as block:
            problem, hessians, originals = self._problem(index, block)
            solution = self._solved(problem, index) if problem.layers else Solution({})
        machine.release_memory(self._task.device)
        # The method owned the block: whatever it changed there beside its codes must not be measured.
        with self._task.streamed.block(name) as block:
            if not is_last:
                self.calls.advance(index, block, self._full)
            for layer in problem.layers:
                layer.write(solution.layers[layer.name].weight())
            self._note(problem, solution, originals, hessians)
            if self._seen is not None and not is_last:
                self.calls.advance(index, block, self._seen)
            started = time.monotonic()
            with installed(quantized_inputs(problem, {})):
                self.evaluation.advance(index, block)
            self._record.cost.evaluation_seconds += time.monotonic() - started

    def describe(self) -> None:
        """Put into the record what is known at the end."""
        model, cell = self._task.model, self._cell
        whole = replace(self.calls.model, blocks=self._sums.blocks)
        if not whole.blocks:
            raise CellError(f"{cell.model.label()}: the blocks hold no Linear, Conv2d or Conv1D layer")
        alone = left_alone(self._task, model, cell)
        bits = self._sums.stored + sum(8 * weight.element_size() * weight.numel() for weight in alone)
        self._record.effective_bits = bits / (self._sums.weights + sum(weight.numel() for weight in alone))
        self._record.metrics["weight_sqnr_db"] = evidence.sqnr_db(self._sums.powers)
        self._record.facts |= {
            "quantized_layers": len(whole.layers),
            "quantized_parameters": self._sums.weights,
            "floating_point": evidence.left_in_floating_point(whole),
            "grid": evidence.grids(whole),
        }
        if (plugins := evidence.plugins_of(cell)) is not None:
            self._record.facts["plugins"] = plugins
        if (inputs := describe_inputs(whole)) is not None:
            self._record.facts["activations"] = inputs

    def _problem(self, index: int, block: nn.Module) -> tuple[Problem, dict[str, Tensor], dict[str, Tensor]]:
        """Return what the method is to solve, the moments of the full-precision inputs, and the original weights."""
        targets, hessians = self._grids.lay(index, block)
        if targets and not hessians:
            hessians = self._grids.moments(index, block)
        given = self._full if self._method.calibrates_on() == "full_precision" else self._seen
        problem = self._grids.posed(index, block, targets, given or [])
        return problem, hessians, {layer.name: layer.matrix().clone() for layer in targets}

    def _solved(self, problem: Problem, index: int) -> Solution:
        if not self._sums.blocks:
            machine.seed_everything(self._seed)
            with torch.enable_grad():
                machine.warm_up(self._task.device)
        started = time.monotonic()
        with evaluation_fence.around(self._task), numbered(index), torch.enable_grad():
            solution = self._method.solve(problem)
        cost = self._record.cost
        cost.method_seconds += time.monotonic() - started
        if not isinstance(solution, Solution):
            raise CellError(f"the method returned {type(solution).__name__} (allowed: a Solution)")
        # Each block sees all of the data.
        cost.calibration_tokens = max(cost.calibration_tokens, solution.calibration_tokens)
        for curve, values in solution.traces.items():
            self._record.traces[f"{curve}/block{index}"] = [float(value) for value in values]
        solution.check(problem)
        return solution

    def _note(
        self, problem: Problem, solution: Solution, originals: dict[str, Tensor], hessians: dict[str, Tensor]
    ) -> None:
        if not problem.layers:
            return
        self._record.layers += evidence.layer_rows(problem, solution, originals, hessians)
        self._sums.powers += evidence.weight_powers(problem, originals)
        stored, weights = evidence.stored_bits(solution)
        self._sums.stored += stored
        self._sums.weights += weights
        layers = problem.layers
        self._writer.add(solution, {one.name: one.activations for one in layers if one.activations is not None})
        # Their grids' parameters are in the packed file, and are not needed any more.
        self._sums.blocks.append(Block(problem.blocks[0].module, tuple(light(one) for one in layers)))

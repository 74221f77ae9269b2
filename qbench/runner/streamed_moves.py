"""Probes that move weights, on a model of which one decoder block at a time is in memory.

Each move has hidden states of its own of the sampled evaluation windows, from the first block on that it changes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.geometry.margin import MovingProbe
from qbench.geometry.moved import Sizes, drawn, each_once, findings
from qbench.geometry.sampled_loss import Sample, sample_of, sampled_losses
from qbench.geometry.scene import NOTHING_TO_LOOK_ALONG, Findings, require_finite_weights
from qbench.geometry.second_order import HandedOn, few_of, handed_on
from qbench.geometry.stand_in import Move
from qbench.methods.batch_norm import estimable
from qbench.methods.problem import Problem, TargetLayer
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.base import Quantizer
from qbench.runner import evidence, machine, probing
from qbench.runner.hidden_states import HiddenStates, Spill
from qbench.runner.streamed_block import numbered
from qbench.runner.streamed_calls import BlockCalls
from qbench.runner.streamed_grids import BlockGrids, light
from qbench.runner.streamed_memory import estimate
from qbench.runner.targets import make_problem, no_grid
from qbench.store.record import Cost, Record
from qbench.suite.cell import Cell
from qbench.tasks.streamed_model import StreamedTask


@torch.no_grad()
def measure(cell: Cell, task: StreamedTask, record: Record, folder: Path) -> None:
    """Run a probe that moves weights.

    Parameters
    ----------
    cell : Cell
        A probe's that says `streams`.
    task : StreamedTask
        Its model with its data.
    record : Record
        Gets facts, cost and what was found.
    folder : Path
        Where hidden states are spilled.

    Raises
    ------
    CellError
        As the whole model raises it, or the probe is of another kind.
    """
    if not isinstance(cell.probe, MovingProbe):
        name = cell.axes()["method"]
        raise CellError(f"{name} says that it streams (allowed: probes made from qbench.geometry.margin.MovingProbe)")
    whole = make_problem(task, task.model, cell, lambda place: no_grid())
    probing.require_weights_alone(cell, whole)
    if cell.probe.bn == "recalibrate":
        estimable(task.model)  # a model that hands on hidden states alone has no batch norm, and this says so
    record.facts = task.facts() | estimate(task, cell)
    if (plugins := evidence.plugins_of(cell)) is not None:
        record.facts["plugins"] = plugins
    machine.seed_everything(whole.seed_of("method"))
    machine.warm_up(task.device)
    started = time.monotonic()
    with Spill(folder, task.device) as spill:
        walk = _Walk(cell, cell.probe, task, whole, spill)
        for index in range(len(walk.calls.names)):
            walk.step(index)
            machine.release_memory(task.device)
        found = walk.finish()
    record.cost = Cost(evaluation_seconds=time.monotonic() - started)
    record.facts["grid"] = walk.grid()
    record.metrics, record.traces = found.metrics, found.traces
    probing.require_finite(found)


@dataclass(frozen=True)
class _InHand:
    """The block in hand, in full precision."""

    layers: Sequence[TargetLayer]
    full: Mapping[str, Tensor]
    error: Mapping[str, Tensor]
    calibrated: Mapping[str, HandedOn]


class _Walk:
    """A probe's way through the blocks of its model."""

    def __init__(self, cell: Cell, probe: MovingProbe, task: StreamedTask, whole: Problem, spill: Spill) -> None:
        assert isinstance(cell.quantizer, Quantizer)
        self._task, self._whole = task, whole
        self._named = probe.moves(tuple(layer.name for layer in whole.layers))
        self._moves = each_once(self._named)
        self._sample = sample_of(task, probe.budget)
        self._sizes, self._any_error = Sizes(), False
        self._laid: list[TargetLayer] = []
        self.calls = BlockCalls(task)
        calibration = self.calls.enter(task.calibration, spill) if cell.quantizer.sees_inputs else None
        self._grids = BlockGrids(cell, task, self.calls, calibration or [])
        self._few: HiddenStates | None = None
        if probe.calibration_tokens:
            self._few = self.calls.enter(few_of(task.calibration, task.tokens_of, probe.calibration_tokens), spill)
        self._in_full_precision = [one for one in (calibration, self._few) if one is not None]
        self._streams = _Streams(self.calls, self._sample, spill)

    def step(self, index: int) -> None:
        """Take the hidden states of all moves through a block, each through the weights that the move has there."""
        name, is_last = self.calls.names[index], index == len(self.calls.names) - 1
        with self._task.streamed.block(name) as block:
            held = self._held(index, block)
            if not is_last:
                for hidden in self._in_full_precision:
                    self.calls.advance(index, block, hidden)
            for move in self._moves:
                own = [layer for layer in held.layers if move.moves(layer.name)]
                for layer in own:
                    layer.write(self._moved(held, layer.name, move))
                self._streams.advance(move, index, block, changes=bool(own))
                for layer in own:
                    layer.write(held.full[layer.name])
            # Not before: moves that begin here set out from what goes into the block in full precision.
            self._streams.advance_full(index, block)

    def finish(self) -> Findings:
        """Return what the record says, once all blocks have been gone through."""
        if not self._any_error:
            raise CellError(NOTHING_TO_LOOK_ALONG)
        losses = {move: self._losses(self._streams.of(move)) for move in self._moves}
        full = self._losses(self._streams.full)
        return findings(self._named, losses, full, self._sizes, self._sample.tokens)

    def grid(self) -> str:
        """Return what the levels of all layers are."""
        return evidence.grids(replace(self._whole, blocks=[replace(self._whole.blocks[0], layers=tuple(self._laid))]))

    def _held(self, index: int, block: nn.Module) -> _InHand:
        layers, _ = self._grids.lay(index, block)
        full = {layer.name: layer.matrix().clone() for layer in layers}
        error = {layer.name: fake_quantize(full[layer.name], layer.grid) - full[layer.name] for layer in layers}
        for layer in layers:
            self._sizes.add(layer.name, full[layer.name], error[layer.name])
            self._any_error |= bool(error[layer.name].any())
        self._laid += [light(layer) for layer in layers]
        calibrated: Mapping[str, HandedOn] = {}
        if layers and self._few is not None:
            with numbered(index):
                calibrated = handed_on(self._grids.posed(index, block, layers, self._few))
        return _InHand(layers, full, error, calibrated)

    def _moved(self, held: _InHand, layer: str, move: Move) -> Tensor:
        full, calibrated = held.full[layer], held.calibrated.get(layer)
        found = full + drawn(full, held.error[layer], move, layer, self._whole.seed_of, calibrated)
        require_finite_weights(layer, found)
        return found

    def _losses(self, hidden: HiddenStates) -> Tensor:
        return torch.cat([self._of_batch(*pair) for pair in zip(self._sample.batches, hidden, strict=True)])

    def _of_batch(self, batch: Tensor, hidden: Tensor) -> Tensor:
        with self.calls.ending(lambda: hidden):
            return sampled_losses(self._task, self._task.model, Sample([batch], batch.numel()))


class _Streams:
    """The hidden states of a sample for each move; of one that has changed nothing yet they are those of `full`."""

    def __init__(self, calls: BlockCalls, sample: Sample, spill: Spill) -> None:
        self._calls, self._spill = calls, spill
        self.full = calls.enter(sample.batches, spill)
        self._own: dict[Move, HiddenStates] = {}

    def advance(self, move: Move, index: int, block: nn.Module, *, changes: bool) -> None:
        """Run a block with the weights of a move; nothing is done for one that goes with full precision still."""
        own = self._own.get(move)
        if own is None and changes:
            own = self._own[move] = self.full.empty(self._spill)
            self._calls.advance(index, block, self.full, into=own)
        elif own is not None:
            self._calls.advance(index, block, own)

    def advance_full(self, index: int, block: nn.Module) -> None:
        """Run a block with the weights of full precision."""
        self._calls.advance(index, block, self.full)

    def of(self, move: Move) -> HiddenStates:
        """Return the hidden states of a move."""
        return self._own.get(move, self.full)

"""The grids of a streamed model's blocks, and each block as a problem of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.sequential import full_precision_hessians
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.base import Quantizer
from qbench.runner.session import importance_of, lay_grid
from qbench.runner.streamed_block import block_problem, numbered
from qbench.runner.streamed_calls import BlockCalls
from qbench.runner.targets import GridPlace, block_layers, no_grid
from qbench.seeds import derive_seed
from qbench.suite.cell import Cell
from qbench.tasks.streamed_model import StreamedTask


class BlockGrids:
    """Lays a cell's grids, block by block.

    Parameters
    ----------
    cell : Cell
        With a quantizer.
    task : StreamedTask
        Its model with its data.
    calls : BlockCalls
        How the model calls its blocks.
    full : sequence of Tensor
        What goes into the block in hand in the full-precision model, on the calibration data; it is looked at by
        `moments`, and where the quantizer sees inputs.
    """

    def __init__(self, cell: Cell, task: StreamedTask, calls: BlockCalls, full: Sequence[Tensor]) -> None:
        assert isinstance(cell.quantizer, Quantizer)
        self._cell, self._task, self._calls, self._full = cell, task, calls, full
        self._quantizer = cell.quantizer
        self._is_first = True

    def lay(self, index: int, block: nn.Module) -> tuple[tuple[TargetLayer, ...], dict[str, Tensor]]:
        """Return a block's target layers, and what `moments` gives where the quantizer has asked for that.

        Parameters
        ----------
        index : int
            The block's place.
        block : nn.Module
            The block, in full precision.

        Raises
        ------
        CellError
            As the whole model raises it.
        """
        moments: dict[str, Tensor] = {}

        def grid_of(place: GridPlace) -> BlockGrid:
            if self._quantizer.sees_inputs and not moments:
                moments.update(self.moments(index, block))
            importance = importance_of(moments, place) if self._quantizer.sees_inputs else None
            twice, self._is_first = self._is_first, False
            return lay_grid(self._task, self._quantizer, place, importance, twice=twice)

        return block_layers(self._task, self._task.model, self._cell, index, grid_of), moments

    def moments(self, index: int, block: nn.Module) -> dict[str, Tensor]:
        """Return the second moments of the inputs of all of a block's layers in the full-precision model."""
        everything = replace(self._cell, quantizer=None, bits=None)
        layers = block_layers(self._task, self._task.model, everything, index, lambda place: no_grid())
        with numbered(index):
            return full_precision_hessians(self.posed(index, block, layers, self._full))

    def posed(self, index: int, block: nn.Module, layers: Sequence[TargetLayer], hidden: Sequence[Tensor]) -> Problem:
        """Return the problem of a block alone.

        Parameters
        ----------
        index : int
            The block's place.
        block : nn.Module
            The block.
        layers : sequence of TargetLayer
            Those of the block that are asked for.
        hidden : sequence of Tensor
            What goes into it; see `block_problem`.
        """
        # Not through this object: who has it must not reach the evaluation windows by it.
        label, seed = self._cell.model.label(), self._cell.seed
        return block_problem(
            self._calls.rests(index),
            Block(block, tuple(layers)),
            hidden,
            lambda purpose: derive_seed(purpose, label, seed),
        )


def light(layer: TargetLayer) -> TargetLayer:
    """Return a layer whose grid has levels alone: what there is to say of it when its block is gone."""
    return replace(layer, grid=replace(layer.grid, scale=torch.empty(0), zero_point=torch.empty(0), table=None))

"""Where GPTQ takes a column's scale from, and the order in which it goes through the columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from qbench.errors import CellError
from qbench.methods.ordered_grid import OrderedGrid
from qbench.methods.stage import Stage
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.layout import choose_grid

ActOrder = bool | Literal["group_aware"]


def column_order(hessian: Tensor, act_order: ActOrder, group_size: int) -> Tensor:
    """Return the order in which columns are quantized.

    Parameters
    ----------
    hessian : Tensor of shape (stacks, n, n)
        Second moments of the inputs.
    act_order : bool or "group_aware"
        False: as they stand. True: by falling diagonal of the Hessian. ``group_aware``: groups by the falling mean of
        their diagonal, and by falling diagonal inside a group, so that groups stay whole (GPTQModel's "GAR"); a last
        group that is shorter stays last.
    group_size : int
        Columns a group; the last may have fewer.

    Returns
    -------
    Tensor of shape (stacks, n), int64
        Ties keep the order of the columns.
    """
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    stacks, n = diagonal.shape
    if act_order is False:
        return torch.arange(n, device=hessian.device).expand(stacks, n)
    inside = diagonal.argsort(dim=1, descending=True, stable=True)
    if act_order is True:
        return inside
    group = torch.arange(n, device=hessian.device) // group_size
    groups = int(group[-1]) + 1
    counts = torch.bincount(group, minlength=groups)
    means = torch.zeros(stacks, groups, device=hessian.device).index_add_(1, group, diagonal.float()) / counts
    if n % group_size:
        means[:, -1] = -1.0
    rank = means.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # place of each group
    by_group = rank[:, group].gather(1, inside).argsort(dim=1, stable=True)
    return inside.gather(1, by_group)


class StaticScales:
    """The scales of the given grid, chosen from the full-precision weight before any method ran.

    Parameters
    ----------
    grid : BlockGrid
        Of a stage.
    order : Tensor of shape (stacks, n)
        Of the columns.
    block_size : int
        Columns a block.

    Attributes
    ----------
    grid : OrderedGrid
        The grid in that order.
    widths : list of int
        Of the blocks.
    """

    def __init__(self, grid: BlockGrid, order: Tensor, block_size: int) -> None:
        n = order.shape[1]
        self.widths = [min(block_size, n - start) for start in range(0, n, block_size)]
        self.grid = OrderedGrid.of(grid, order)

    def __call__(self, own: slice, current: Callable[[], Tensor]) -> OrderedGrid:
        """Return the grid of a block of columns; see `qbench.methods.gptq_solver.Scales`."""
        return self.grid.columns(own)

    def chosen(self) -> None:
        """Return nothing: the codes are on the stage's grid."""


class FreshScales:
    """Scales chosen when GPTQ comes to a group, from what its weights have become by then.

    Parameters
    ----------
    stage : Stage
        Its layers tell the quantizer; groups are those of its grid.
    order : Tensor of shape (stacks, n)
        Of the columns, with groups whole.

    Raises
    ------
    CellError
        The layers came with a grid but without a quantizer.
    """

    def __init__(self, stage: Stage, order: Tensor) -> None:
        grid, n = stage.grid(), order.shape[1]
        self._quantizer, self._grid, self._order = stage.layers[0].quantizer, grid, order
        if self._quantizer is None:
            raise CellError("group_scales: fresh needs the quantizer, and the layers came with a grid only")
        self._importance = stage.gram.hessian.diagonal(dim1=1, dim2=2) if self._quantizer.sees_inputs else None
        size = grid.group_size
        # The groups in the order in which they are met; a shorter one comes last.
        self._met = order // size
        self.widths = [min(size, n - start) for start in range(0, n, size)]
        self._scale, self._zero_point = grid.scale.clone(), grid.zero_point.clone()

    def __call__(self, own: slice, current: Callable[[], Tensor]) -> OrderedGrid:
        """Return the grid of a group of columns; see `qbench.methods.gptq_solver.Scales`."""
        weight = current()
        stacks, width, rows = weight.shape
        assert self._quantizer is not None
        importance = None
        if self._importance is not None:
            seen = self._importance.gather(1, self._order[:, own])
            importance = seen[:, None].expand(stacks, rows, width).reshape(-1, width)
        found = choose_grid(weight.mT.reshape(-1, width), self._quantizer, self._grid.levels.bits, importance)
        scale, zero_point = (part.view(stacks, rows, 1) for part in (found.scale, found.zero_point))
        place = self._met[:, own.start, None, None].expand(stacks, rows, 1)
        self._scale.scatter_(2, place, scale)
        self._zero_point.scatter_(2, place, zero_point)
        return OrderedGrid.from_parts(self._grid.levels, scale.mT, zero_point.mT, None)

    def chosen(self) -> BlockGrid:
        """Return the stage's grid with the scales that were chosen."""
        return replace(self._grid, scale=self._scale, zero_point=self._zero_point)

"""A stage's grid as column-by-column methods go through it: transposed, and in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from qbench.quant.block_grid import BlockGrid
from qbench.quant.levels import Levels
from qbench.quant.snapping import CodebookSnapping, Snapping


@dataclass(frozen=True)
class OrderedGrid:
    """A grid over matrices that are kept transposed, of shape (stacks, n, rows), with their columns in some order.

    Attributes
    ----------
    scale : Tensor of shape (stacks, 1 or n, rows)
        One for all columns, or one each.
    snapping : Snapping
        The levels, with parameters of the shape of the scale; those of a codebook are the same for all columns.
    """

    scale: Tensor
    snapping: Snapping

    @classmethod
    def of(cls, grid: BlockGrid, order: Tensor) -> OrderedGrid:
        """Return a stage's grid in an order of the columns, of shape (stacks, n)."""
        scale, zero_point = grid.by_column(order.shape[1])
        return cls.from_parts(grid.levels, _ordered(scale, order), _ordered(zero_point, order), grid.table)

    @classmethod
    def from_parts(cls, levels: Levels, scale: Tensor, zero_point: Tensor, table: Tensor | None) -> OrderedGrid:
        """Return a grid from parameters that are transposed and in order already.

        Parameters
        ----------
        levels : Levels
            The levels.
        scale, zero_point : Tensor of shape (stacks, 1 or n, rows)
            Of the columns.
        table : Tensor of shape (stacks, rows, count), or None
            Codebooks of the rows.
        """
        snapping = levels.snapping(zero_point, table)
        return cls(scale, CodebookSnapping(table, rows_last=True) if table is not None else snapping)

    def columns(self, own: slice) -> OrderedGrid:
        """Return the grid of some of the columns."""
        if self.scale.shape[1] == 1:
            return self
        return OrderedGrid(self.scale[:, own], self._at(lambda part: part[:, own]))

    def by_column(self, width: int) -> Iterator[tuple[Tensor, Snapping]]:
        """Yield scale, of shape (stacks, rows), and levels of each of `width` columns, one after the other."""
        if self.scale.shape[1] == 1:
            step, snapping = self.scale[:, 0], self._at(lambda part: part[:, 0])
            for _ in range(width):
                yield step, snapping
        else:
            for place in range(width):
                yield self.scale[:, place], self._at(partial(_column, place=place))

    def nearest(self, weight: Tensor) -> Tensor:
        """Return the values of rounding to nearest, in units of the scale, for weights of shape (stacks, n, rows)."""
        if isinstance(self.snapping, CodebookSnapping):
            turned = weight.mT.contiguous()
            return self._by_row().snap(turned, out=turned).mT
        positions = weight / self.scale
        return self.snapping.snap(positions, out=positions)

    def errors(self, weight: Tensor, values: Tensor) -> Tensor:
        """Return the weight minus what its value stands for, all of shape (stacks, n, rows)."""
        return torch.addcmul(weight, values, self.scale, value=-1)

    def codes(self, values: Tensor) -> Tensor:
        """Return the codes of values of shape (stacks, n, rows)."""
        if isinstance(self.snapping, CodebookSnapping):
            return self._by_row().codes(values.mT).mT
        return self.snapping.codes(values)

    def _by_row(self) -> CodebookSnapping:
        assert isinstance(self.snapping, CodebookSnapping)
        return CodebookSnapping(self.snapping.table)

    def _at(self, index: Callable[[Tensor], Tensor]) -> Snapping:
        # Codebooks are the same for all columns: there is nothing to be picked from them.
        return self.snapping if isinstance(self.snapping, CodebookSnapping) else self.snapping.at(index)


def _column(parameter: Tensor, place: int) -> Tensor:
    return parameter[:, place]


def _ordered(by_column: Tensor, order: Tensor) -> Tensor:
    """Return scales or zero points of shape (stacks, rows, 1 or n) as (stacks, 1 or n, rows), in order."""
    if by_column.shape[2] == 1:
        return by_column.mT.contiguous()
    return in_order(by_column.mT, order)


def in_order(by_column: Tensor, order: Tensor) -> Tensor:
    """Return a tensor of shape (stacks, n, anything) with the columns, which come second, in order.

    Parameters
    ----------
    by_column : Tensor of shape (stacks, n, anything)
        Columns as they stand.
    order : Tensor of shape (stacks, n)
        Of the columns.
    """
    if len(order) == 1:
        return by_column.index_select(1, order[0])  # several times faster than to gather
    return by_column.gather(1, order[..., None].expand(*order.shape, by_column.shape[2]))

"""Weights to their nearest levels, in units of the scale.

A position is a weight divided by its scale; a value is the level it goes to, in the same units. Methods work with
values, whatever the levels are: ``value * scale`` is the quantized weight, and codes are needed in the end only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from qbench.quant.grid import IntegerGrid
    from qbench.quant.levels import LevelTable

Index = Callable[[Tensor], Tensor]


class Snapping(Protocol):
    """Levels at given places; their parameters broadcast against positions."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The shifted positions beyond which a weight counts as clipped."""

    def shifted(self, positions: Tensor, out: Tensor) -> Tensor:
        """Return positions as `bounds` counts them: in `out`, or where nothing is to be done, as they are."""

    def snap(self, positions: Tensor, out: Tensor) -> Tensor:
        """Write the values of the nearest levels to `out`, which may be the positions."""

    def codes(self, values: Tensor) -> Tensor:
        """Return the codes of values, in their floating-point type."""

    def values(self, codes: Tensor) -> Tensor:
        """Return the values that codes stand for."""

    def at(self, index: Index) -> Snapping:
        """Return the levels at some of the places, with `index` applied to each parameter."""


@dataclass(frozen=True)
class IntegerSnapping:
    """Integer levels, counted from the zero point.

    Attributes
    ----------
    bounds : tuple of float
        Lowest and highest level.
    low, high : Tensor or None
        The same, counted from the zero point; None where every zero point is 0.
    zero_point : Tensor or None
        None where every zero point is 0.
    is_whole : bool
        Whether zero points are whole.
    """

    bounds: tuple[float, float]
    low: Tensor | None
    high: Tensor | None
    zero_point: Tensor | None
    is_whole: bool = True

    @classmethod
    def of(cls, levels: IntegerGrid, zero_point: Tensor) -> IntegerSnapping:
        """Return a grid's levels at given zero points."""
        low, high = float(levels.quant_min), float(levels.quant_max)
        if len(levels.zero_points) == 1 and not levels.real_zero_point:
            return cls((low, high), None, None, None)
        return cls((low, high), low - zero_point, high - zero_point, zero_point, not levels.real_zero_point)

    def shifted(self, positions: Tensor, out: Tensor) -> Tensor:
        """Return levels in place of distances from the zero point, before rounding."""
        return positions if self.zero_point is None else torch.add(positions, self.zero_point, out=out)

    def snap(self, positions: Tensor, out: Tensor) -> Tensor:
        """Round half to even, and clip."""
        if self.zero_point is None or self.low is None or self.high is None:
            return torch.round(positions, out=out).clamp_(*self.bounds)
        if self.is_whole:
            torch.round(positions, out=out)
        else:
            torch.add(positions, self.zero_point, out=out).round_().sub_(self.zero_point)
        # Two bounds a row in one clamp would leave the vector units.
        torch.maximum(out, self.low, out=out)
        return torch.minimum(out, self.high, out=out)

    def codes(self, values: Tensor) -> Tensor:
        """Return the level itself: its value and the zero point."""
        if self.zero_point is None:
            return values
        codes = values + self.zero_point
        return codes if self.is_whole else codes.round_()

    def values(self, codes: Tensor) -> Tensor:
        """Return levels counted from the zero point."""
        return codes if self.zero_point is None else codes - self.zero_point

    def at(self, index: Index) -> IntegerSnapping:
        """Return the levels at some of the zero points."""
        if self.zero_point is None or self.low is None or self.high is None:
            return self
        return IntegerSnapping(self.bounds, index(self.low), index(self.high), index(self.zero_point), self.is_whole)


@dataclass(frozen=True)
class TableSnapping:
    """The levels of a table, the same everywhere.

    Attributes
    ----------
    table : Tensor of shape (count,)
        Values of the levels.
    boundaries : Tensor of shape (count - 1,)
        Above these a position goes to the next level.
    bounds : tuple of float
        Ends of the range.
    """

    table: Tensor
    boundaries: Tensor
    bounds: tuple[float, float]

    @classmethod
    def of(cls, levels: LevelTable, like: Tensor) -> TableSnapping:
        """Return a table's levels on the device and in the type of a tensor."""
        return cls(*_table(levels, like.dtype, like.device), (-levels.reach, levels.reach))

    def shifted(self, positions: Tensor, out: Tensor) -> Tensor:
        """Return positions as they are."""
        return positions

    def snap(self, positions: Tensor, out: Tensor) -> Tensor:
        """Go to the nearest level; see `LevelTable` for ties."""
        nearest = torch.bucketize(positions, self.boundaries, out_int32=True)
        return out.copy_(self.table[nearest])

    def codes(self, values: Tensor) -> Tensor:
        """Return the place of each value in the table."""
        return torch.bucketize(values, self.boundaries, out_int32=True).to(values.dtype)

    def values(self, codes: Tensor) -> Tensor:
        """Look codes up."""
        return self.table[codes.int()]

    def at(self, index: Index) -> TableSnapping:
        """Return itself: the table is the same everywhere."""
        return self


@lru_cache(maxsize=64)
def _table(levels: LevelTable, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    values = torch.tensor(levels.values, dtype=torch.float64)
    middles = (values[1:] + values[:-1]) / 2
    boundaries = middles.to(dtype)
    # A position on the boundary stays below it. Where the even level lies above, the boundary is the next lower number.
    upper_is_even = (torch.arange(1, levels.count) - levels.first_even) % 2 == 0
    below = torch.nextafter(boundaries, torch.full_like(boundaries, -torch.inf))
    exact = boundaries.double() == middles
    boundaries = torch.where(exact & upper_is_even | (boundaries.double() > middles), below, boundaries)
    return values.to(device, dtype), boundaries.to(device)


@dataclass(frozen=True)
class CodebookSnapping:
    """Levels of each row's own.

    Attributes
    ----------
    table : Tensor of shape (..., 1 or rows, count)
        Rising in each row.
    rows_last : bool
        Whether positions have the shape (..., rows), or (..., rows, columns).
    """

    table: Tensor
    rows_last: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Return 0 and 1: see `shifted`."""
        return 0.0, 1.0

    def shifted(self, positions: Tensor, out: Tensor) -> Tensor:
        """Return how far positions are on the way from their row's lowest level to its highest."""
        low, high = self.table[..., 0], self.table[..., -1]
        if not self.rows_last:
            low, high = low[..., None], high[..., None]
        # A row whose levels are all equal has no way between: whatever is not on the level is clipped.
        return torch.sub(positions, low, out=out).div_((high - low).clamp(min=torch.finfo(positions.dtype).tiny))

    def snap(self, positions: Tensor, out: Tensor) -> Tensor:
        """Go to the nearest level of the row; from the middle between two to the lower one."""
        own = self._by_row(positions)
        self._by_row(out).copy_(self._table_over(own).gather(-1, self._nearest(own)))
        return out

    def codes(self, values: Tensor) -> Tensor:
        """Return the place of each value in its row's levels."""
        own = self._by_row(values)
        # Of several equal levels the first: the boundary between them is the level itself.
        return self._nearest(own).view(values.shape).to(values.dtype)

    def values(self, codes: Tensor) -> Tensor:
        """Look codes up."""
        own = self._by_row(codes)
        return self._table_over(own).gather(-1, own.long()).view(codes.shape)

    def at(self, index: Index) -> CodebookSnapping:
        """Return the levels of some of the rows."""
        return CodebookSnapping(index(self.table), self.rows_last)

    def _by_row(self, tensor: Tensor) -> Tensor:
        return tensor[..., None] if self.rows_last else tensor

    def _table_over(self, positions: Tensor) -> Tensor:
        return self.table.expand(*positions.shape[:-1], -1)

    def _nearest(self, positions: Tensor) -> Tensor:
        table = self._table_over(positions)
        boundaries = (table[..., 1:] + table[..., :-1]).div_(2)
        return torch.searchsorted(boundaries, positions.contiguous())

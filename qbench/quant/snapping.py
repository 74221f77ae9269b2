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
class Cells:
    """Even cells along the line with at most one boundary each: the nearest level in a few passes without a search.

    The search of `torch.bucketize` mispredicts a branch for each bit of a code and weight. A cell is found by a product
    and a conversion, and one comparison decides between its two levels. That is exact: rounding cannot put a position
    into an earlier cell than a lower one, so only boundaries of its own cell have to be compared with it.

    Attributes
    ----------
    first, per_unit : float
        Where the second cell begins, and cells a unit of position.
    boundary, low, high : Tensor of shape (n_cells,)
        The boundary within each cell (infinite where there is none), and the levels below and above it.
    """

    first: float
    per_unit: float
    boundary: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, table: Tensor, boundaries: Tensor) -> Cells | None:
        """Return the fewest cells that hold one boundary each; None where they would not stay in a core's cache."""
        width = float(boundaries[-1] - boundaries[0]) or 1.0
        count = 16
        while count <= _MOST_CELLS:
            first, per_unit = float(boundaries[0]), (count - 3) / width
            places = _cells(boundaries, first, per_unit, count)
            if len(places.unique()) == len(places):
                below = torch.bucketize(torch.arange(count, device=places.device), places.int())
                boundary = torch.full((count,), torch.inf, dtype=table.dtype, device=table.device)
                boundary[places.long()] = boundaries
                return cls(first, per_unit, boundary, table[below], table[(below + 1).clamp(max=len(table) - 1)])
            count *= 2
        return None

    def look_up(self, positions: Tensor, out: Tensor) -> Tensor:
        """Write the level nearest to each position to `out`."""
        own = _cells(positions, self.first, self.per_unit, len(self.boundary)).reshape(-1)
        boundary, low, high = (part.index_select(0, own).view(positions.shape) for part in self._parts())
        return torch.where(positions > boundary, high, low, out=out)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.boundary, self.low, self.high


_MOST_CELLS = 4096


def _cells(positions: Tensor, first: float, per_unit: float, count: int) -> Tensor:
    return torch.sub(positions, first).mul_(per_unit).add_(1).clamp_(0, count - 1).int()


@dataclass(frozen=True)
class TableSnapping:
    """The levels of a table, the same everywhere.

    Attributes
    ----------
    table : Tensor of shape (count,)
        Values of the levels.
    boundaries : Tensor of shape (count - 1,)
        Above these a position goes to the next level.
    cells : Cells or None
        A faster way to the nearest level, where the levels lie evenly enough for one.
    bounds : tuple of float
        Ends of the range.
    """

    table: Tensor
    boundaries: Tensor
    cells: Cells | None
    bounds: tuple[float, float]

    @classmethod
    def of(cls, levels: LevelTable, like: Tensor) -> TableSnapping:
        """Return a table's levels on the device and in the type of a tensor."""
        table, boundaries, cells = _table(levels, like.dtype, like.device)
        return cls(table, boundaries, cells, (-levels.reach, levels.reach))

    def shifted(self, positions: Tensor, out: Tensor) -> Tensor:
        """Return positions as they are."""
        return positions

    def snap(self, positions: Tensor, out: Tensor) -> Tensor:
        """Go to the nearest level; see `LevelTable` for ties."""
        if self.cells is not None:
            return self.cells.look_up(positions, out)
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
def _table(levels: LevelTable, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Cells | None]:
    values = torch.tensor(levels.values, dtype=torch.float64)
    middles = (values[1:] + values[:-1]) / 2
    boundaries = middles.to(dtype)
    # A position on the boundary stays below it. Where the even level lies above, the boundary is the next lower number.
    upper_is_even = (torch.arange(1, levels.count) - levels.first_even) % 2 == 0
    below = torch.nextafter(boundaries, torch.full_like(boundaries, -torch.inf))
    exact = boundaries.double() == middles
    boundaries = torch.where(exact & upper_is_even | (boundaries.double() > middles), below, boundaries)
    table, boundaries = values.to(device, dtype), boundaries.to(device)
    return table, boundaries, Cells.of(table, boundaries)


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

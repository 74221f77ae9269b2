"""Levels that are not the integers: fixed tables of multiples of a scale, and codebooks of a block's own.

What all kinds of levels have in common is `Levels`; the integers are `qbench.quant.grid.IntegerGrid`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Protocol

from qbench.errors import QBenchError

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.snapping import CodebookSnapping, Snapping, TableSnapping


class Levels(Protocol):
    """The levels that a code can stand for, before any scale.

    Codes are consecutive whole numbers, and a larger code is a higher level.
    """

    @property
    def bits(self) -> int:
        """Bits a code."""

    @property
    def quant_min(self) -> int:
        """Lowest code."""

    @property
    def quant_max(self) -> int:
        """Highest code."""

    @property
    def count(self) -> int:
        """Number of codes."""

    @property
    def zero_points(self) -> range:
        """The zero points that a block may have; ``range(1)`` where there are none to choose."""

    @property
    def real_zero_point(self) -> bool:
        """Whether zero points need not be whole."""

    @property
    def zero_point_bits(self) -> int:
        """Bits needed to store a zero point."""

    @property
    def reach(self) -> float:
        """How many scales the levels reach to either side of 0."""

    def snapping(self, zero_point: Tensor, table: Tensor | None = None) -> Snapping:
        """Return the levels as they lie at given zero points, or in given codebooks."""

    def describe(self) -> str:
        """Return what they are, for records and tables."""


class _Unshifted:
    """Levels without zero points."""

    @property
    def zero_points(self) -> range:
        """None to choose."""
        return range(1)

    @property
    def real_zero_point(self) -> bool:
        """False."""
        return False

    @property
    def zero_point_bits(self) -> int:
        """Return 0: nothing is stored."""
        return 0

    @property
    def quant_min(self) -> int:
        """Lowest code."""
        return 0


@dataclass(frozen=True)
class LevelTable(_Unshifted):
    """Fixed levels, as multiples of the scale: code k stands for ``scale * values[k]``.

    Attributes
    ----------
    bits : int
        Bits a code, 1 to 8.
    values : tuple of float
        Rising; at most 2^bits.
    name : str
        What they are called in records.
    range_end : float or None
        The multiple of the scale that the end of a block's range is laid on; None for the largest magnitude in
        `values`. Weights beyond it count as clipped.

    Raises
    ------
    QBenchError
        The values are not finite, do not rise, or are more than the bits can tell, or fewer than two.

    Notes
    -----
    A weight in the middle between two levels goes to the one an even number of levels away from the lowest that is not
    negative. In a floating-point format these are the even mantissas, as IEEE 754 and the OCP formats ask.
    """

    bits: int
    values: tuple[float, ...]
    name: str = "table"
    range_end: float | None = None

    def __post_init__(self) -> None:
        if not all(isfinite(value) for value in self.values):
            raise QBenchError(f"levels {self.name!r}: given a value that is not a finite number")
        rising = all(low < high for low, high in zip(self.values, self.values[1:], strict=False))
        if not rising or not 2 <= len(self.values) <= 2**self.bits:
            raise QBenchError(
                f"levels {self.name!r}: given {len(self.values)} values{'' if rising else ' that do not rise'} "
                f"(allowed: 2 to {2**self.bits} rising values in {self.bits} bits)"
            )

    @property
    def quant_max(self) -> int:
        """Highest code."""
        return len(self.values) - 1

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self.values)

    @property
    def symmetric(self) -> bool:
        """Whether each level has its opposite."""
        return self.values == tuple(-value for value in reversed(self.values))

    @property
    def reach(self) -> float:
        """The multiple of the scale that the end of a range is laid on."""
        return self.range_end or max(abs(self.values[0]), abs(self.values[-1]))

    @property
    def first_even(self) -> int:
        """Code of the lowest level that is not negative; codes at an even distance take the ties."""
        return bisect_left(self.values, 0.0)

    def snapping(self, zero_point: Tensor, table: Tensor | None = None) -> TableSnapping:
        """Return the levels on the device and in the type of a tensor; see `qbench.quant.snapping`."""
        from qbench.quant.snapping import TableSnapping

        return TableSnapping.of(self, zero_point)

    def describe(self) -> str:
        """Return the name, with the levels where they are few."""
        few = ", ".join(f"{value:.4g}" for value in self.values)
        return f"{self.name}: {few}" if self.count <= 8 else f"{self.name}, {self.count} levels"


@dataclass(frozen=True)
class Codebook(_Unshifted):
    """Levels of each block's own, kept in `qbench.quant.block_grid.BlockGrid.table`; there is no scale.

    Attributes
    ----------
    bits : int
        Bits a code; a block has 2^bits levels, some of which may be equal.
    """

    bits: int

    @property
    def quant_max(self) -> int:
        """Highest code."""
        return (1 << self.bits) - 1

    @property
    def count(self) -> int:
        """Number of codes."""
        return 1 << self.bits

    @property
    def reach(self) -> float:
        """Return 1: levels are no multiples of a scale."""
        return 1.0

    def snapping(self, zero_point: Tensor, table: Tensor | None = None) -> CodebookSnapping:
        """Return the levels of each row; see `qbench.quant.snapping`."""
        from qbench.quant.snapping import CodebookSnapping

        assert table is not None
        return CodebookSnapping(table)

    def describe(self) -> str:
        """Return how many levels a block has."""
        return f"codebook of {self.count} levels a block"

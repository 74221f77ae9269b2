"""Scale and zero point of blocks of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qbench.quant.grid import IntegerGrid

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


@dataclass(frozen=True)
class QParams:
    """Where the levels of a grid lie, block by block: level q stands for ``scale * (q - zero_point)``.

    Attributes
    ----------
    scale : Tensor of shape (n_blocks, 1)
        Distance between neighbouring levels; positive.
    zero_point : Tensor of shape (n_blocks, 1), optional
        The level that stands for 0, an integer in floating-point form, one of the `zero_points` of the levels; None
        for 0.
    """

    scale: Tensor
    zero_point: Tensor | None = None

    def zero_points(self) -> Tensor:
        """Return the zero points, 0 where there are none."""
        return self.scale * 0 if self.zero_point is None else self.zero_point

    @classmethod
    def from_range(cls, low: Tensor, high: Tensor, grid: Levels) -> QParams:
        """Lay a grid over a range, so that zero is a level.

        Parameters
        ----------
        low, high : Tensor of shape (n_blocks, 1)
            The range; widened to hold 0. A range that is nothing but 0 becomes [-1, 1].
        grid : Levels
            Symmetric integers and tables take the larger of ``|low|`` and ``|high|`` as both ends.

        Notes
        -----
        Asymmetric: ``scale = (high - low) / (2^b - 1)``, ``zero_point = round(-low / scale)``. Symmetric: see
        `IntegerGrid`. Tables: ``scale = a / reach``. A row without negative values keeps its whole upper half (GPTQ's
        reference code clips it).
        """
        low, high = low.clamp(max=0), high.clamp(min=0)
        empty = (low == 0) & (high == 0)
        low, high = low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)
        if not isinstance(grid, IntegerGrid):
            return cls(((-low).maximum(high) / grid.reach).clamp(min=_SMALLEST_NORMAL))
        if not grid.symmetric:
            steps = 2**grid.bits - 1
            scale = (high / steps - low / steps).clamp(min=_SMALLEST_NORMAL)
            zero_point = -low / scale
            if not grid.real_zero_point:
                zero_point = zero_point.round().clamp(grid.quant_min, grid.quant_max)
            return cls(scale, zero_point)
        largest = (-low).maximum(high)
        if grid.convention == "full_range":
            # Dividing first keeps a range near the largest float from overflowing when doubled.
            scale = largest / (2**grid.bits - 1) * 2
        elif grid.convention == "narrow_range":
            scale = largest / grid.quant_max
        else:
            scale = largest / -grid.quant_min
        scale = scale.clamp(min=_SMALLEST_NORMAL)
        if grid.convention == "larger_side":
            return cls(scale, -(high > -low).to(scale.dtype))
        return cls(scale, scale * 0)

    @classmethod
    def from_blocks(cls, blocks: Tensor, grid: Levels) -> QParams:
        """Lay a grid over the whole range of each block.

        Parameters
        ----------
        blocks : Tensor of shape (n_blocks, block_numel)
            A block a row.
        grid : Levels
            As in `from_range`.
        """
        return cls.from_range(*ends_of(blocks), grid)


def ends_of(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest number of each row, of shape (n_blocks, 1) each."""
    # On a CPU aminmax of rows leaves the vector units: forty times the time of both of these on long rows.
    return blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)


# A subnormal scale would lose its digits, and the reciprocal overflows.
_SMALLEST_NORMAL = 1.1754943508222875e-38

"""Affine quantization of weight matrices.

``code = clip(round(w / scale) + zero_point)`` and ``w_q = scale * (code - zero_point)``. The quotient is a division
(not a product with the reciprocal), rounding is half to even, and the zero point is added after rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.quant.grid import IntegerGrid

if TYPE_CHECKING:
    from qbench.quant.qparams import QParams


@dataclass(frozen=True)
class AffineGrid:
    """An integer grid laid over a weight matrix of shape (rows, columns).

    Attributes
    ----------
    levels : IntegerGrid
        The integer levels.
    scale, zero_point : Tensor of shape (..., 1 or rows, n_groups)
        One entry for each row (or one for all) and each group of columns. Leading dimensions are those of a stack of
        matrices.
    group_size : int
        Columns a group; the last group may have fewer.
    """

    levels: IntegerGrid
    scale: Tensor
    zero_point: Tensor
    group_size: int

    def by_column(self, columns: int) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of each weight, of shape (..., 1 or rows, 1 or columns)."""
        if self.scale.shape[-1] == 1:
            return self.scale, self.zero_point
        return _spread(self.scale, self.group_size, columns), _spread(self.zero_point, self.group_size, columns)

    def with_scale(self, scale: Tensor) -> AffineGrid:
        """Return the same grid at another scale."""
        return replace(self, scale=scale)

    def stored_bits(self, rows: int, columns: int) -> int:
        """Return the bits needed to store a weight matrix: codes, float32 scales and zero points."""
        zero_points = self.levels.zero_point_bits * self.zero_point.numel()
        return self.levels.bits * rows * columns + 32 * self.scale.numel() + zero_points


def _spread(by_group: Tensor, group_size: int, columns: int) -> Tensor:
    # An expanded view costs a sum in the backward pass; indexing by column costs a scatter, which is far slower.
    spread = by_group.unsqueeze(-1).expand(*by_group.shape, group_size)
    return spread.flatten(-2)[..., :columns]


def quantize(weight: Tensor, grid: AffineGrid) -> Tensor:
    """Return the code of the nearest level of each weight.

    Parameters
    ----------
    weight : Tensor of shape (..., rows, columns)
        Floating point.
    grid : AffineGrid
        The grid.

    Returns
    -------
    Tensor of shape (..., rows, columns)
        Integers in the weight's floating-point type, from ``quant_min`` to ``quant_max``.
    """
    scale, zero_point = grid.by_column(weight.shape[-1])
    return (torch.round(weight / scale) + zero_point).clamp(grid.levels.quant_min, grid.levels.quant_max)


def dequantize(codes: Tensor, grid: AffineGrid) -> Tensor:
    """Return the weights that codes stand for; shapes as in `quantize`."""
    scale, zero_point = grid.by_column(codes.shape[-1])
    return (codes - zero_point) * scale


def fake_quantize(weight: Tensor, grid: AffineGrid) -> Tensor:
    """Return each weight's nearest representable value: rounding to nearest."""
    return dequantize(quantize(weight, grid), grid)


def stack_rows(grids: list[AffineGrid], rows: list[int], stacks: int = 1) -> AffineGrid:
    """Return the grid of matrices put on top of one another, stack by stack.

    Parameters
    ----------
    grids : list of AffineGrid
        Grids of matrices with the same number of columns, groups and levels.
    rows : list of int
        Rows of each matrix; a grid with one scale for all rows is spread over them.
    stacks : int
        Each matrix is cut into so many parts of equal height, and part i goes into stack i.

    Returns
    -------
    AffineGrid
        With scale and zero point of shape (stacks, sum of rows / stacks, n_groups).
    """

    def stack(parts: list[Tensor]) -> Tensor:
        spread = [part.expand(count, -1) for part, count in zip(parts, rows, strict=True)]
        return torch.cat([part.reshape(stacks, -1, part.shape[1]) for part in spread], dim=1)

    scale, zero_point = stack([grid.scale for grid in grids]), stack([grid.zero_point for grid in grids])
    return replace(grids[0], scale=scale, zero_point=zero_point)


def join_groups(parts: list[QParams], levels: IntegerGrid, rows: int, group_size: int) -> AffineGrid:
    """Return the grid of a matrix from the parameters of its blocks.

    Parameters
    ----------
    parts : list of QParams
        Blocks of the whole groups, row by row, and of the shorter last groups if there are any.
    levels : IntegerGrid
        The integer levels.
    rows : int
        Rows of scale and zero point.
    group_size : int
        Columns a group.
    """
    scale = torch.cat([part.scale.reshape(rows, -1) for part in parts], dim=1)
    zero_point = torch.cat([part.zero_point.reshape(rows, -1) for part in parts], dim=1)
    return AffineGrid(levels, scale, zero_point, group_size)

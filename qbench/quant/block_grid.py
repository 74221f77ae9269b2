"""Grids over weight matrices: levels laid block by block, and rounding to nearest.

On integer levels ``code = clip(round(w / scale) + zero_point)`` and ``w_q = scale * (code - zero_point)``. The quotient
is a division (not a product with the reciprocal), rounding is half to even, and the zero point is added after rounding
(a real one before).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.quant.levels import Levels
from qbench.quant.scale_format import FLOAT32, ScaleFormat
from qbench.quant.snapping import Snapping

if TYPE_CHECKING:
    from qbench.quant.qparams import QParams


@dataclass(frozen=True)
class BlockGrid:
    """Levels laid over a weight matrix of shape (rows, columns), block by block.

    Attributes
    ----------
    levels : Levels
        What codes stand for, before any scale.
    scale, zero_point : Tensor of shape (..., 1 or row blocks, n_groups)
        One entry for each block of rows (or one for all) and each group of columns. Leading dimensions are those of a
        stack of matrices.
    group_size : int
        Columns a group; the last group may have fewer.
    block_rows : int
        Rows that share a scale; the last block may have fewer. Without meaning where all rows share one.
    table : Tensor of shape (..., 1 or rows, 2^bits), optional
        Rising levels of each row's own, where the levels are a `qbench.quant.levels.Codebook`; the scale is 1 then.
    scale_format : ScaleFormat
        What scales are stored in.
    """

    levels: Levels
    scale: Tensor
    zero_point: Tensor
    group_size: int
    block_rows: int = 1
    table: Tensor | None = None
    scale_format: ScaleFormat = FLOAT32

    def over_rows(self, parameter: Tensor, rows: int) -> Tensor:
        """Return scale or zero point of each row, of shape (..., 1 or rows, n_groups)."""
        blocks = parameter.shape[-2]
        if blocks == 1 or self.block_rows == 1:
            return parameter
        return parameter.repeat_interleave(self.block_rows, dim=-2)[..., :rows, :]

    def by_column(self, columns: int, rows: int = 0) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of each weight, of shape (..., 1 or rows, 1 or columns).

        Parameters
        ----------
        columns, rows : int
            Of the matrix. Without tiles that reach over several rows, rows are as many as scale and zero point have.
        """
        by_row = (self.over_rows(part, rows) for part in (self.scale, self.zero_point))
        if self.scale.shape[-1] == 1:
            return tuple(by_row)  # type: ignore[return-value]
        scale, zero_point = (_over_columns(part, self.group_size, columns) for part in by_row)
        return scale, zero_point

    def with_scale(self, scale: Tensor) -> BlockGrid:
        """Return the same grid at another scale."""
        return replace(self, scale=scale)

    def copy(self) -> BlockGrid:
        """Return the same grid with parameters of its own."""
        return self.mapped(Tensor.clone)

    def to(self, device: torch.device) -> BlockGrid:
        """Return the same grid on a device."""
        return self.mapped(lambda part: part.to(device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> BlockGrid:
        """Return the grid with each of its tensors changed: scale, zero point, and table where it has one."""
        table = None if self.table is None else change(self.table)
        return replace(self, scale=change(self.scale), zero_point=change(self.zero_point), table=table)

    def on_matrix(self, matrix: Tensor) -> tuple[Tensor, Snapping]:
        """Return the scale of each weight of a matrix, as `by_column` does, and its levels."""
        rows, columns = matrix.shape[-2:]
        scale, zero_point = self.by_column(columns, rows)
        return scale, self.levels.snapping(zero_point, self.table)

    def stored_bits(self, rows: int, columns: int) -> int:
        """Return the bits needed to store a weight matrix: codes, scales, zero points, codebooks."""
        from qbench.quant.packing import packed_bits

        codes = packed_bits(rows * columns, self.levels.count, self.levels.bits)
        if self.table is not None:
            return codes + 32 * self.table.numel()
        scales = self.scale_format.bits * self.scale.numel() + self.scale_format.shared_bits
        return codes + scales + self.levels.zero_point_bits * self.zero_point.numel()


def _over_columns(by_group: Tensor, group_size: int, columns: int) -> Tensor:
    # An expanded view costs a sum in the backward pass; indexing by column costs a scatter, which is far slower.
    spread = by_group.unsqueeze(-1).expand(*by_group.shape, group_size)
    return spread.flatten(-2)[..., :columns]


def quantize(weight: Tensor, grid: BlockGrid) -> Tensor:
    """Return the code of the nearest level of each weight.

    Parameters
    ----------
    weight : Tensor of shape (..., rows, columns)
        Floating point.
    grid : BlockGrid
        The grid.

    Returns
    -------
    Tensor of shape (..., rows, columns)
        Integers in the weight's floating-point type, from ``quant_min`` to ``quant_max``.
    """
    scale, snapping = grid.on_matrix(weight)
    return snapping.codes(_nearest(weight, scale, snapping))


def _nearest(weight: Tensor, scale: Tensor, snapping: Snapping) -> Tensor:
    positions = weight / scale
    return snapping.snap(positions, out=positions)


def dequantize(codes: Tensor, grid: BlockGrid) -> Tensor:
    """Return the weights that codes stand for; shapes as in `quantize`."""
    scale, snapping = grid.on_matrix(codes)
    return snapping.values(codes) * scale


def fake_quantize(weight: Tensor, grid: BlockGrid) -> Tensor:
    """Return each weight's nearest representable value: rounding to nearest."""
    scale, snapping = grid.on_matrix(weight)
    return _nearest(weight, scale, snapping) * scale


def stack_rows(grids: list[BlockGrid], rows: list[int], stacks: int = 1) -> BlockGrid:
    """Return the grid of matrices put on top of one another, stack by stack.

    Parameters
    ----------
    grids : list of BlockGrid
        Grids of matrices with the same number of columns, groups and levels.
    rows : list of int
        Rows of each matrix; a grid with one scale for several rows is spread over them.
    stacks : int
        Each matrix is cut into so many parts of equal height, and part i goes into stack i.

    Returns
    -------
    BlockGrid
        With scale and zero point of shape (stacks, sum of rows / stacks, n_groups).
    """

    def stack(parts: list[Tensor]) -> Tensor:
        spread = [part.expand(count, -1) for part, count in zip(parts, rows, strict=True)]
        return torch.cat([part.reshape(stacks, -1, part.shape[1]) for part in spread], dim=1)

    def by_row(name: str) -> list[Tensor]:
        return [grid.over_rows(getattr(grid, name), count) for grid, count in zip(grids, rows, strict=True)]

    tables = [grid.table for grid in grids if grid.table is not None]
    return replace(
        grids[0],
        scale=stack(by_row("scale")),
        zero_point=stack(by_row("zero_point")),
        block_rows=1,
        table=stack(tables) if tables else None,
    )


def join_groups(parts: list[QParams], levels: Levels, rows: int, group_size: int, block_rows: int = 1) -> BlockGrid:
    """Return the grid of a matrix from the parameters of its blocks.

    Parameters
    ----------
    parts : list of QParams
        Blocks of the whole groups, row by row, and of the shorter last groups if there are any.
    levels : Levels
        The levels.
    rows : int
        Rows of scale and zero point.
    group_size, block_rows : int
        Columns and rows a block.
    """
    scale = torch.cat([part.scale.reshape(rows, -1) for part in parts], dim=1)
    zero_point = torch.cat([part.zero_points().reshape(rows, -1) for part in parts], dim=1)
    return BlockGrid(levels, scale, zero_point, group_size, block_rows)

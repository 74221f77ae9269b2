"""Fake quantization and its gradients in one pass over memory.

Each function works through a weight matrix in bands of rows that stay in a core's cache, so that a handful of
elementwise operations reads and writes main memory once. Nothing is kept between forward and backward pass but the
weight itself: dividing again costs less than storing and reading a quotient or a mask. Levels are clipped on a range
shifted by the zero point, ``clip(round(w / s), q_min - z, q_max - z)``, which is
``clip(round(w / s) + z, q_min, q_max) - z`` with one operation less, and two less where a grid has no zero point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from qbench.quant.block_grid import BlockGrid
from qbench.quant.snapping import Snapping

# A band of float32 is 1 MiB: small enough for a core's share of the cache together with the two or three it is worked
# on with, large enough that starting an operation costs little and threads find pieces of 2^15 to share.
_BAND = 1 << 18
# The smallest normal number stands for the one next to 0, which some devices flush to 0.
_SMALLEST = 1.1754943508222875e-38

_clipped = torch.ops.aten.hardtanh_backward.grad_input


@dataclass(frozen=True)
class _Cut:
    """A matrix with its grid, shaped so that a scale meets its weights by broadcasting; first dimension: rows."""

    grid: BlockGrid
    columns: int
    scale: Tensor
    snapping: Snapping
    grouped: bool

    @classmethod
    def of(cls, weight: Tensor, grid: BlockGrid) -> _Cut:
        columns, groups = weight.shape[1], grid.scale.shape[1]
        grouped = groups > 1 and groups * grid.group_size == columns
        if grouped:
            parts = (grid.over_rows(part, len(weight)) for part in (grid.scale, grid.zero_point))
            scale, zero_point = (part.unsqueeze(-1) for part in parts)
        else:
            scale, zero_point = grid.by_column(columns, len(weight))
        return cls(grid, columns, scale, grid.levels.snapping(zero_point, grid.table), grouped)

    def shape(self, matrix: Tensor) -> Tensor:
        return matrix.unflatten(1, (-1, self.grid.group_size)) if self.grouped else matrix

    def bands(self, weight: Tensor) -> Iterator[slice | None]:
        """Yield bands of rows; None is all of them at once."""
        # An accelerator pays for each launch, and the rows of a transposed matrix are not bands of memory.
        if weight.numel() <= _BAND or weight.device.type != "cpu" or not weight.is_contiguous():
            return iter((None,))
        rows, height = len(weight), max(1, _BAND // self.columns)
        return (slice(start, min(start + height, rows)) for start in range(0, rows, height))

    def at(self, band: slice | None) -> tuple[Tensor, Snapping]:
        """Return scale and levels of a band."""
        if band is None:
            return self.scale, self.snapping

        def rows(parameter: Tensor) -> Tensor:
            return parameter if parameter.shape[0] == 1 else parameter[band]

        return rows(self.scale), self.snapping.at(rows)

    def sums_of_rows(self, products: Tensor) -> Tensor:
        """Add up each row of a band by groups: (rows, n_groups)."""
        groups = self.grid.scale.shape[1]
        if groups > 1 and not self.grouped:
            missing = groups * self.grid.group_size - self.columns
            products = functional.pad(products, (0, missing)).unflatten(1, (groups, -1))
        return products.sum(dim=-1) if groups > 1 else products.sum(dim=-1, keepdim=True)

    def sums(self, of_rows: Tensor) -> Tensor:
        """Add up rows that share a scale: the shape of the scale."""
        blocks, height = self.grid.scale.shape[0], self.grid.block_rows
        if blocks == 1:
            return of_rows.sum(dim=0, keepdim=True)
        if height == 1:
            return of_rows
        missing = blocks * height - of_rows.shape[0]
        return functional.pad(of_rows, (0, 0, 0, missing)).view(blocks, height, -1).sum(dim=1)


def _rows(matrix: Tensor, band: slice | None) -> Tensor:
    return matrix if band is None else matrix[band]


def _space(scratch: Tensor, band: slice | None) -> Tensor:
    return scratch if band is None else scratch[: band.stop - band.start]


@torch.no_grad()
def round_to_levels(weight: Tensor, grid: BlockGrid, out: Tensor) -> Tensor:
    """Write the nearest representable value of each weight.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        Floating point.
    grid : BlockGrid
        The grid, of the weight's type.
    out : Tensor of shape (rows, columns)
        Of any floating-point type; may be the weight itself.

    Returns
    -------
    Tensor of shape (rows, columns)
        `out`: what `qbench.quant.block_grid.fake_quantize` gives, cast to the type of `out`.
    """
    cut = _Cut.of(weight, grid)
    source, target = cut.shape(weight), cut.shape(out)
    scratch: Tensor | None = None
    for band in cut.bands(weight):
        part = _rows(target, band)
        if out.dtype == weight.dtype:
            levels = part
        else:
            scratch = torch.empty_like(_rows(source, band)) if scratch is None else scratch
            levels = _space(scratch, band)
        scale, snapping = cut.at(band)
        torch.div(_rows(source, band), scale, out=levels)
        snapping.snap(levels, out=levels).mul_(scale)
        if levels is not part:
            part.copy_(levels)
    return out


@torch.no_grad()
def pass_inside(weight: Tensor, gradient: Tensor, grid: BlockGrid, out: Tensor) -> Tensor:
    """Write the gradient of each weight within the range, ends included, and 0 where it is clipped.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        The latent weight.
    gradient : Tensor of shape (rows, columns)
        With respect to the quantized weight, of the weight's type.
    grid : BlockGrid
        A weight counts as clipped when ``w / s + z`` is below ``q_min`` or above ``q_max``, before rounding; on a table
        of levels beyond its reach, on a codebook beyond its ends.
    out : Tensor of shape (rows, columns)
        Of the weight's type; may be the gradient itself.

    Returns
    -------
    Tensor of shape (rows, columns)
        `out`.
    """
    cut = _Cut.of(weight, grid)
    source, upstream, target = cut.shape(weight), cut.shape(gradient), cut.shape(out)
    low, high = (_beyond(end, weight.dtype) for end in (-cut.snapping.bounds[0], cut.snapping.bounds[1]))
    scratch: Tensor | None = None
    for band in cut.bands(weight):
        part = _rows(source, band)
        scratch = torch.empty_like(part) if scratch is None else scratch
        scale, snapping = cut.at(band)
        position = torch.div(part, scale, out=_space(scratch, band))
        position = snapping.shifted(position, out=position)
        _clipped(_rows(upstream, band), position, -low, high, grad_input=_rows(target, band))
    return out


def _beyond(end: float, dtype: torch.dtype) -> float:
    """Return the least number above the end of a range, so that a comparison that leaves ends out lets it in."""
    if end == 0:
        return _SMALLEST
    return float(torch.nextafter(torch.tensor(end, dtype=dtype), torch.tensor(torch.inf, dtype=dtype)))


@torch.no_grad()
def step_size_gradients(weight: Tensor, gradient: Tensor, grid: BlockGrid, out: Tensor) -> tuple[Tensor, Tensor]:
    """Return LSQ's gradients of weight and step size (Esser et al., 2020, equations 3 and 5), before any gain.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        The latent weight.
    gradient : Tensor of shape (rows, columns)
        With respect to the quantized weight, of the weight's type.
    grid : BlockGrid
        At the present step sizes.
    out : Tensor of shape (rows, columns)
        Takes the weight's gradient; of the weight's type, may be the gradient itself.

    Returns
    -------
    tuple of Tensor
        `out`, and the step size's gradient in the shape of the grid's scale.

    Notes
    -----
    The slope of a weight is its level where it is clipped, on the last level or beyond, and ``round(w/s) - w/s``
    between the ends.
    """
    cut = _Cut.of(weight, grid)
    source, upstream, target = cut.shape(weight), cut.shape(gradient), cut.shape(out)
    low, high = cut.snapping.bounds
    sums: list[Tensor] = []
    scratch: list[Tensor] = []
    for band in cut.bands(weight):
        part, arriving = _rows(source, band), _rows(upstream, band)
        scratch = scratch or [torch.empty_like(part) for _ in range(3)]
        ratio, slope, third = (_space(one, band) for one in scratch)
        scale, snapping = cut.at(band)
        torch.div(part, scale, out=ratio)
        snapping.snap(ratio, out=slope)
        position = snapping.shifted(ratio, out=third)
        inside = third if position is ratio else ratio
        _clipped(ratio, position, low, high, grad_input=inside)
        sums.append(cut.sums_of_rows(slope.sub_(inside).mul_(arriving)))
        # Last, since the gradient may be overwritten here.
        _clipped(arriving, position, low, high, grad_input=_rows(target, band))
    return out, cut.sums(sums[0] if len(sums) == 1 else torch.cat(sums))


def block_sums(matrix: Tensor, grid: BlockGrid) -> Tensor:
    """Return the sums of a matrix of shape (rows, columns) over the weights that share a scale, in its shape."""
    cut = _Cut.of(matrix, grid)
    return cut.sums(cut.sums_of_rows(cut.shape(matrix)))

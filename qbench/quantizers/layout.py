"""From a weight matrix to blocks and back: how granularity meets a quantizer's range rule."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qbench.errors import CellError
from qbench.quant.block_grid import BlockGrid, join_groups
from qbench.quant.levels import Codebook, Levels
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer


def choose_grid(weight: Tensor, quantizer: Quantizer, bits: int, importance: Tensor | None = None) -> BlockGrid:
    """Lay a quantizer's grid over a weight matrix.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        The full-precision weight.
    quantizer : Quantizer
        Range rule, granularity and levels.
    bits : int
        Bits a code.
    importance : Tensor of shape (1 or rows, columns), optional
        ``E[x_j^2]`` of the inputs, for quantizers that see inputs.

    Returns
    -------
    BlockGrid
        In float32, on the weight's device.

    Raises
    ------
    CellError
        The weight holds NaN or infinity, or the quantizer changed the weights it was given, or returned parameters of
        a wrong shape or value, or needs the inputs and there are none.
    """
    weight = weight.detach().float()
    if not torch.isfinite(weight).all():
        raise CellError(f"weight of shape {tuple(weight.shape)} holds NaN or infinite values: it cannot be quantized")
    if quantizer.sees_inputs and importance is None:
        raise CellError(f"quantizer {quantizer.name!r} needs the inputs of a layer, which are not known here")
    rows, columns = weight.shape
    levels, granularity = _levels_of(quantizer, bits), quantizer.granularity
    if isinstance(levels, Codebook):
        return _codebook(weight, quantizer, levels)
    weighing = importance.expand(rows, columns) if importance is not None and quantizer.sees_inputs else None
    if granularity.kind == "per_tensor":
        block = (weight.reshape(1, -1), None if weighing is None else weighing.reshape(1, -1))
        return _stored(join_groups([_choose(quantizer, *block, levels)], levels, 1, columns), quantizer)
    if granularity.kind == "per_block":
        return _tiled(weight, weighing, quantizer, levels)
    group_size = min(granularity.group_size or columns, columns)
    whole = columns // group_size * group_size
    found = [_choose(quantizer, *_cut(weight, weighing, slice(0, whole), group_size), levels)]
    if whole < columns:
        found.append(_choose(quantizer, *_cut(weight, weighing, slice(whole, columns), columns - whole), levels))
    return _stored(join_groups(found, levels, rows, group_size), quantizer)


def _levels_of(quantizer: Quantizer, bits: int) -> Levels:
    levels = quantizer.levels(bits)
    if not isinstance(getattr(levels, "count", None), int):
        raise CellError(
            f"quantizer {quantizer.name!r}: levels({bits}) returned {type(levels).__name__} "
            "(allowed: IntegerGrid, LevelTable or Codebook)"
        )
    if levels.count > 2**bits:
        raise CellError(f"quantizer {quantizer.name!r} has {levels.count} levels, more than {bits} bits can tell")
    if levels.bits != bits:
        raise CellError(f"quantizer {quantizer.name!r}: levels({bits}) returned levels of {levels.bits} bits")
    return levels


def _cut(weight: Tensor, weighing: Tensor | None, columns: slice, width: int) -> tuple[Tensor, Tensor | None]:
    blocks = weight[:, columns].reshape(-1, width)
    return blocks, None if weighing is None else weighing[:, columns].reshape(-1, width)


def _tiled(weight: Tensor, weighing: Tensor | None, quantizer: Quantizer, levels: Levels) -> BlockGrid:
    """Lay a grid over tiles: those of one shape are blocks of one call."""
    rows, columns = weight.shape
    height = min(quantizer.granularity.block_rows or rows, rows)
    width = min(quantizer.granularity.group_size or columns, columns)
    bands = []
    for top in range(0, rows, height) if rows % height else [0]:
        # All rows at once where they fill whole tiles; otherwise one row of tiles at a time.
        band = slice(top, min(top + height, rows)) if rows % height else slice(0, rows)
        tall = min(height, band.stop - band.start)
        parts = []
        whole = columns // width * width
        for left, right, wide in ((0, whole, width), (whole, columns, columns - whole)):
            if left < right:
                cut = [_tiles(one[band, left:right], tall, wide) for one in (weight, weighing) if one is not None]
                parts.append(_choose(quantizer, cut[0], cut[1] if len(cut) > 1 else None, levels))
        count = (band.stop - band.start) // tall
        bands.append(join_groups(parts, levels, count, width, height))
    scale, zero_point = (torch.cat([getattr(band, name) for band in bands]) for name in ("scale", "zero_point"))
    return _stored(replace(bands[0], scale=scale, zero_point=zero_point), quantizer)


def _tiles(matrix: Tensor, height: int, width: int) -> Tensor:
    tiled: Tensor = matrix.unflatten(0, (-1, height)).unflatten(2, (-1, width)).transpose(1, 2)
    return tiled.flatten(0, 1).flatten(1)


def _stored(grid: BlockGrid, quantizer: Quantizer) -> BlockGrid:
    """Round the scales to what they are stored in."""
    kept = quantizer.scale_format(grid.scale)
    return replace(grid, scale=kept.round(grid.scale), scale_format=kept)


def _codebook(weight: Tensor, quantizer: Quantizer, levels: Codebook) -> BlockGrid:
    kind = quantizer.granularity.kind
    if kind not in ("per_tensor", "per_channel"):
        raise CellError(
            f"quantizer {quantizer.name!r} has a codebook, which is per_tensor or per_channel, given {kind}"
        )
    blocks = weight if kind == "per_channel" else weight.reshape(1, -1)
    given = blocks.clone()
    table = quantizer.choose_table(given, levels)
    if not torch.equal(given, blocks):
        raise CellError(f"quantizer {quantizer.name!r} changed the weights it was given")
    if not isinstance(table, Tensor):
        raise CellError(f"quantizer {quantizer.name!r} returned {type(table).__name__} (allowed: a tensor of levels)")
    if table.shape != (len(blocks), levels.count):
        raise CellError(
            f"quantizer {quantizer.name!r} returned levels of shape {tuple(table.shape)}, "
            f"expected {(len(blocks), levels.count)}"
        )
    if not torch.isfinite(table).all() or (table[:, 1:] < table[:, :-1]).any():
        raise CellError(f"quantizer {quantizer.name!r} returned levels that do not rise, or are not finite")
    ones = weight.new_ones(len(blocks), 1)
    return BlockGrid(levels, ones, ones * 0, weight.shape[1], table=table.float())


def _choose(quantizer: Quantizer, blocks: Tensor, weighing: Tensor | None, levels: Levels) -> QParams:
    given = blocks.clone()  # a view of the weight would let a rule change the model
    if weighing is None:
        found = quantizer.choose_qparams(given, levels)
    else:
        # All cells of a model share its second moments.
        found = quantizer.choose_qparams(given, levels, importance=weighing.clone())  # type: ignore[call-arg]
    if not torch.equal(given, blocks):
        raise CellError(f"quantizer {quantizer.name!r} changed the weights it was given")
    if not isinstance(found, QParams):
        raise CellError(f"quantizer {quantizer.name!r} returned {type(found).__name__} (allowed: QParams)")
    expected, zero_point = (blocks.shape[0], 1), found.zero_points()
    if found.scale.shape != expected or zero_point.shape != expected:
        raise CellError(
            f"quantizer {quantizer.name!r} returned shapes {tuple(found.scale.shape)} and "
            f"{tuple(zero_point.shape)}, expected {expected} for both"
        )
    if not (torch.isfinite(found.scale).all() and (found.scale > 0).all()):
        raise CellError(f"quantizer {quantizer.name!r} returned a scale that is not a positive finite number")
    if not zero_points_fit(zero_point, levels):
        raise CellError(f"quantizer {quantizer.name!r} returned a zero point that is not {_zero_points_of(levels)}")
    return QParams(found.scale.float(), zero_point.float())


def require_same(grid: BlockGrid, again: BlockGrid, quantizer: Quantizer) -> None:
    """Make sure that a quantizer gave the same grid twice.

    Raises
    ------
    CellError
        It did not.
    """
    pairs = [(grid.scale, again.scale), (grid.zero_point, again.zero_point)]
    if grid.table is not None and again.table is not None:
        pairs.append((grid.table, again.table))
    alike = grid.levels == again.levels and grid.scale_format == again.scale_format
    if not alike or not all(torch.equal(first, second) for first, second in pairs):
        raise CellError(f"quantizer {quantizer.name!r} gave another grid for the same weight: it is not deterministic")


def zero_points_fit(zero_point: Tensor, levels: Levels) -> bool:
    """Return whether all zero points are among those that the levels can have."""
    if levels.real_zero_point:
        return bool(torch.isfinite(zero_point).all())
    inside = (zero_point >= levels.zero_points[0]) & (zero_point <= levels.zero_points[-1])
    return bool((inside & (zero_point == zero_point.round())).all())


def _zero_points_of(levels: Levels) -> str:
    if levels.real_zero_point:
        return "a finite number"
    if len(levels.zero_points) == 1:
        return "0, as on this symmetric grid"
    return f"an integer from {levels.zero_points[0]} to {levels.zero_points[-1]}"

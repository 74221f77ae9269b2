"""From a weight matrix to blocks and back: how granularity meets a quantizer's range rule."""

from __future__ import annotations

import torch
from torch import Tensor

from qbench.errors import CellError
from qbench.quant.affine import AffineGrid, join_groups
from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer


def choose_grid(weight: Tensor, quantizer: Quantizer, bits: int) -> AffineGrid:
    """Lay a quantizer's grid over a weight matrix.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        The full-precision weight.
    quantizer : Quantizer
        Range rule, granularity and symmetry.
    bits : int
        Bits a code.

    Returns
    -------
    AffineGrid
        In float32, on the weight's device.

    Raises
    ------
    CellError
        The weight holds NaN or infinity, or the quantizer returned parameters of a wrong shape or value.
    """
    weight = weight.detach().float()
    if not torch.isfinite(weight).all():
        raise CellError(f"weight of shape {tuple(weight.shape)} holds NaN or infinite values: it cannot be quantized")
    rows, columns = weight.shape
    levels = IntegerGrid(bits, quantizer.symmetric, quantizer.convention)
    granularity = quantizer.granularity
    if granularity.kind == "per_tensor":
        return join_groups([_choose(quantizer, weight.reshape(1, -1), levels)], levels, 1, columns)
    group_size = min(granularity.group_size or columns, columns)
    whole = columns // group_size * group_size
    parts = [_choose(quantizer, weight[:, :whole].reshape(-1, group_size), levels)]
    if whole < columns:
        parts.append(_choose(quantizer, weight[:, whole:], levels))
    return join_groups(parts, levels, rows, group_size)


def _choose(quantizer: Quantizer, blocks: Tensor, levels: IntegerGrid) -> QParams:
    found = quantizer.choose_qparams(blocks, levels)
    expected = (blocks.shape[0], 1)
    if found.scale.shape != expected or found.zero_point.shape != expected:
        raise CellError(
            f"quantizer {quantizer.name!r} returned shapes {tuple(found.scale.shape)} and "
            f"{tuple(found.zero_point.shape)}, expected {expected} for both"
        )
    if not (torch.isfinite(found.scale).all() and (found.scale > 0).all()):
        raise CellError(f"quantizer {quantizer.name!r} returned a scale that is not a positive finite number")
    allowed, zero_point = levels.zero_points, found.zero_point
    if not ((zero_point == zero_point.round()) & (zero_point >= allowed[0]) & (zero_point <= allowed[-1])).all():
        said = f"an integer from {allowed[0]} to {allowed[-1]}" if len(allowed) > 1 else "0, as on this symmetric grid"
        raise CellError(f"quantizer {quantizer.name!r} returned a zero point that is not {said}")
    return QParams(found.scale.float(), zero_point.float())

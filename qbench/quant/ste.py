"""Fake quantization with a gradient: straight-through, and with a learned step size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qbench.quant.affine import AffineGrid


class _FakeQuantizeSTE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, masked: bool
    ) -> Tensor:
        ratio = weight / scale
        if masked:
            position = ratio + zero_point
            ctx.save_for_backward((position >= low) & (position <= high))
        ctx.masked = masked
        return ratio.round_().add_(zero_point).clamp_(low, high).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.masked:
            (inside,) = ctx.saved_tensors
            grad = grad * inside
        return grad, None, None, None, None, None


def fake_quantize_ste(weight: Tensor, grid: AffineGrid, *, masked: bool) -> Tensor:
    """Round to nearest in the forward pass; pass the gradient straight through in the backward pass.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns), float32
        Latent weight.
    grid : AffineGrid
        Fixed grid.
    masked : bool
        Whether clipped weights get no gradient; without the mask the backward pass is the identity.

    Returns
    -------
    Tensor of shape (rows, columns)
        The quantized weight.
    """
    scale, zero_point = grid.by_column(weight.shape[1])
    levels = grid.levels
    result: Tensor = _FakeQuantizeSTE.apply(  # type: ignore[no-untyped-call]
        weight, scale, zero_point, levels.quant_min, levels.quant_max, masked
    )
    return result


class _FakeQuantizeLSQ(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, gain: float
    ) -> Tensor:
        ratio = weight / scale
        position = ratio + zero_point
        inside = (position > low) & (position < high)
        levels = ratio.round().add_(zero_point).clamp_(low, high).sub_(zero_point)
        # d w_q / d scale is (level - w/scale) inside the range and the level itself where the weight is clipped
        ctx.save_for_backward(levels - ratio.mul_(inside), inside)
        ctx.scale_shape, ctx.gain = scale.shape, gain
        return levels * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, inside = ctx.saved_tensors
        grad_scale = (grad * slope).sum_to_size(ctx.scale_shape).mul_(ctx.gain)
        return grad * inside, grad_scale, None, None, None, None


def fake_quantize_lsq(weight: Tensor, scale: Tensor, grid: AffineGrid, gain: float) -> Tensor:
    """Round to nearest with a learned step size (Esser et al., 2020, arXiv:1902.08153, equations 1-3).

    Parameters
    ----------
    weight : Tensor of shape (rows, columns), float32
        Latent weight; clipped weights get no gradient.
    scale : Tensor of shape (1 or rows, n_groups)
        Step sizes; gets the gradient of equation 3 times `gain`.
    grid : AffineGrid
        Levels and zero points; its own scale is not used.
    gain : float
        The gradient scale g.

    Returns
    -------
    Tensor of shape (rows, columns)
        The quantized weight.
    """
    # The spread over columns stays in the graph, so that a group's columns add up in its step size's gradient.
    by_column, zero_point = grid.with_scale(scale).by_column(weight.shape[1])
    levels = grid.levels
    result: Tensor = _FakeQuantizeLSQ.apply(  # type: ignore[no-untyped-call]
        weight, by_column, zero_point, levels.quant_min, levels.quant_max, gain
    )
    return result

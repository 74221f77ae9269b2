"""Fake quantization with a gradient: straight-through, and with a learned step size.

The functions of `qbench.quant.fused` as autograd functions. The training loop calls those directly, once a layer and
step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qbench.quant.block_grid import BlockGrid
from qbench.quant.fused import pass_inside, round_to_levels, step_size_gradients


class _FakeQuantizeSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, grid: BlockGrid, masked: bool) -> Tensor:
        if masked:
            ctx.save_for_backward(weight)
        ctx.grid, ctx.masked = grid, masked
        return round_to_levels(weight, grid, torch.empty_like(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.masked:
            (weight,) = ctx.saved_tensors
            grad = pass_inside(weight, grad, ctx.grid, torch.empty_like(weight))
        return grad, None, None


def fake_quantize_ste(weight: Tensor, grid: BlockGrid, *, masked: bool) -> Tensor:
    """Round to nearest in the forward pass; pass the gradient straight through in the backward pass.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        Latent weight, of the grid's floating-point type.
    grid : BlockGrid
        Fixed grid.
    masked : bool
        Whether clipped weights get no gradient (Bengio et al., 2013, arXiv:1308.3432); without the mask the backward
        pass is the identity.

    Returns
    -------
    Tensor of shape (rows, columns)
        The quantized weight.

    Notes
    -----
    Clipped is what lies beyond the last level. torch's own operator counts as clipped what *rounds* to beyond the last
    level, half a step further out.
    """
    result: Tensor = _FakeQuantizeSTE.apply(weight, grid, masked)  # type: ignore[no-untyped-call]
    return result


class _FakeQuantizeLSQ(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, grid: BlockGrid, gain: float) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.grid, ctx.gain = grid, gain
        return round_to_levels(weight, grid.with_scale(scale), torch.empty_like(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale = ctx.saved_tensors
        by_weight, by_step = step_size_gradients(weight, grad, ctx.grid.with_scale(scale), torch.empty_like(weight))
        return by_weight, by_step.mul_(ctx.gain), None, None


def fake_quantize_lsq(weight: Tensor, scale: Tensor, grid: BlockGrid, gain: float) -> Tensor:
    """Round to nearest with a learned step size (Esser et al., 2020, arXiv:1902.08153, equations 1-3).

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        Latent weight; clipped weights get no gradient.
    scale : Tensor of shape (1 or rows, n_groups)
        Step sizes; gets the gradient of equation 3 times `gain`.
    grid : BlockGrid
        Levels and zero points; its own scale is not used.
    gain : float
        The gradient scale g.

    Returns
    -------
    Tensor of shape (rows, columns)
        The quantized weight.
    """
    result: Tensor = _FakeQuantizeLSQ.apply(weight, scale, grid, gain)  # type: ignore[no-untyped-call]
    return result

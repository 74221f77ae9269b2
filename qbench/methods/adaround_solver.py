"""AdaRound's solver on second moments of the inputs, in the paper's order: relaxation, loss, annealing, hardening."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.methods.problem import LayerSolution
from qbench.methods.stage import Gram, Stage
from qbench.methods.stage_error import layer_solutions, stage_error
from qbench.quant.affine import AffineGrid, dequantize, quantize

if TYPE_CHECKING:
    from qbench.methods.adaround import AdaRound

# The stretched sigmoid of equation 23: h(V) = clip(sigmoid(V) * (ZETA - GAMMA) + GAMMA, 0, 1).
ZETA, GAMMA = 1.1, -0.1
# A rounding counts as settled when h is this close to 0 or 1.
_SETTLED = 0.05


def beta_at(iteration: int, options: AdaRound) -> float | None:
    """Return the exponent of the regularizer at a zero-based iteration; None during the warm start."""
    start = options.warm_start * options.iterations
    if iteration < start:
        return None
    done = (iteration - start) / (options.iterations - start)
    fall = 0.5 * (1 + math.cos(math.pi * done)) if options.schedule == "cosine" else 1 - done
    return options.beta_end + (options.beta_start - options.beta_end) * fall


def learn_rounding(weight: Tensor, grid: AffineGrid, gram: Gram, options: AdaRound) -> tuple[Tensor, float]:
    """Learn which way each weight is rounded.

    Parameters
    ----------
    weight : Tensor of shape (rows, n)
        The full-precision weight.
    grid : AffineGrid
        Fixed.
    gram : Gram
        Second moments of the inputs.
    options : AdaRound
        Iterations, rates and annealing.

    Returns
    -------
    codes : Tensor of shape (rows, n)
        Hardened: h(V) of a half and above rounds up.
    unsettled : float
        Share of the weights whose h was further than 0.05 from 0 and 1 before it was hardened.
    """
    levels = grid.levels
    scale, zero_point = grid.by_column(weight.shape[1])
    position = weight / scale
    floor = position.floor()
    down, up = ((floor + shift + zero_point).clamp(levels.quant_min, levels.quant_max) for shift in (0, 1))
    free = up > down  # a clipped weight has one level only
    base, rise = (down - zero_point) * scale, (up - down) * scale
    wanted = weight @ gram.cross  # W E[x_fp x^T]

    rtn_error = stage_error(weight, dequantize(quantize(weight, grid), grid), gram).sum()
    # Where rounding to nearest makes no error there is nothing to gain, and the quotient would overflow.
    per_weight = torch.where(rtn_error > 1e-30, weight.numel() / rtn_error, 0.0)
    fraction = (position - floor).clamp(1e-4, 1 - 1e-4)
    v = torch.logit((fraction - GAMMA) / (ZETA - GAMMA)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=options.learning_rate, fused=True)
    for iteration in range(options.iterations):
        sigmoid = torch.sigmoid(v.detach())
        h = (sigmoid * (ZETA - GAMMA) + GAMMA).clamp_(0, 1)
        # d/dWq of E|W x_fp - Wq x|^2 = 2 (Wq E[x x^T] - W E[x_fp x^T])
        gradient = torch.addmm(wanted, torch.addcmul(base, rise, h), gram.hessian, beta=-1)
        gradient.mul_(rise).mul_(2 * per_weight)
        beta = beta_at(iteration, options)
        if beta is not None and options.regularization > 0:
            centred = 2 * h - 1
            push = centred.abs().pow_(beta - 1).copysign_(centred)
            gradient.add_(push, alpha=-2 * beta * options.regularization)
        # dh/dV of the stretched sigmoid: nothing where it is clipped
        slope = sigmoid.mul_(1 - sigmoid).mul_(ZETA - GAMMA)
        v.grad = gradient.mul_(slope).mul_((h > 0) & (h < 1))
        optimizer.step()
    h = (torch.sigmoid(v.detach()) * (ZETA - GAMMA) + GAMMA).clamp_(0, 1)
    unsettled = ((h > _SETTLED) & (h < 1 - _SETTLED) & free).float().mean().item()
    return torch.where(h >= 0.5, up, down), unsettled


def solve_stage(stage: Stage, options: AdaRound) -> dict[str, LayerSolution]:
    """Learn the rounding of layers that share their input, as one matrix.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. Errors are relative to the layer's full-precision output power.
    """
    rows = [layer.module.weight.shape[0] for layer in stage.layers]
    weight = torch.cat([layer.module.weight.detach() for layer in stage.layers]).float()
    grid = stack_rows([layer.grid for layer in stage.layers], rows)
    nearest = quantize(weight, grid)
    dead = not stage.gram.hessian.diagonal().any()
    codes, unsettled = (nearest, 0.0) if dead else learn_rounding(weight, grid, stage.gram, options)
    return layer_solutions(
        stage,
        weight,
        grid,
        codes,
        nearest,
        details={"unsettled": unsettled},
        fallback="rtn: all inputs of the layer are 0" if dead else None,
    )

"""AdaRound's solver on second moments of the inputs, in the paper's order: relaxation, loss, annealing, hardening."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.methods.neighbour_descent import descend
from qbench.methods.problem import LayerSolution
from qbench.methods.soft_rounding import Neighbours, beta_at, rectified, regularizer_gradient
from qbench.methods.stage import Gram, Stage
from qbench.methods.stage_error import NO_INPUT, layer_solutions, stage_error
from qbench.quant.block_grid import BlockGrid, fake_quantize, quantize

if TYPE_CHECKING:
    from qbench.methods.adaround import AdaRound


def error_unit(weight: Tensor, grid: BlockGrid, gram: Gram) -> Tensor:
    """Return the error of rounding to nearest, per weight, of each matrix.

    Parameters
    ----------
    weight : Tensor of shape (stacks, rows, n)
        Full precision.
    grid : BlockGrid
        The grid.
    gram : Gram
        Second moments of the inputs.

    Returns
    -------
    Tensor of shape (stacks, 1, 1)
        In units of the squared output.
    """
    total = stage_error(weight, fake_quantize(weight, grid), gram).sum(dim=1)
    return (total / (weight.shape[1] * weight.shape[2]))[:, None, None]


def moments_gradient(soft: Tensor, wanted: Tensor, hessian: Tensor) -> Tensor:
    """Return the gradient of ``E|W x_fp - Wq x|^2`` with respect to Wq, ``2 (Wq E[x x^T] - W E[x_fp x^T])``.

    Parameters
    ----------
    soft : Tensor of shape (stacks, rows, n)
        Wq.
    wanted : Tensor of shape (stacks, rows, n)
        ``W E[x_fp x^T]``.
    hessian : Tensor of shape (stacks, n, n)
        ``E[x x^T]``.
    """
    return torch.baddbmm(wanted, soft, hessian, beta=-2, alpha=2)


def learn_rounding(weight: Tensor, grid: BlockGrid, gram: Gram, options: AdaRound) -> tuple[Tensor, Tensor]:
    """Learn which way each weight of stacked matrices is rounded.

    Parameters
    ----------
    weight : Tensor of shape (stacks, rows, n)
        The full-precision weights.
    grid : BlockGrid
        Fixed; scales of shape (stacks, rows, n_groups).
    gram : Gram
        Second moments of the inputs.
    options : AdaRound
        Iterations, rates and annealing.

    Returns
    -------
    codes : Tensor of shape (stacks, rows, n)
        Hardened, and after the passes of coordinate descent that were asked for.
    unsettled : Tensor of shape (stacks,)
        Share of the weights whose h was further than 0.05 from 0 and 1 before it was hardened.
    """
    between = Neighbours.of(weight, grid)
    wanted = torch.bmm(weight, gram.cross)
    unit = error_unit(weight, grid, gram)
    # Where rounding to nearest makes no error there is nothing to gain, and the quotient would overflow.
    slope_of_error = between.rise * torch.where(unit * weight[0].numel() > 1e-30, 1 / unit, 0.0)
    v = between.start().requires_grad_()
    optimizer = torch.optim.Adam([v], lr=options.learning_rate, fused=True)
    for iteration in range(options.iterations):
        h, slope = rectified(v.detach())
        gradient = moments_gradient(between.soft(h), wanted, gram.hessian).mul_(slope_of_error)
        beta = beta_at(iteration, options)
        if beta is not None and options.regularization > 0:
            gradient.add_(regularizer_gradient(h, beta), alpha=options.regularization)
        v.grad = gradient.mul_(slope)
        optimizer.step()
    h, _ = rectified(v.detach())
    codes = between.harden(h)
    if options.cd_sweeps:
        codes = descend(codes, between, wanted, gram.hessian, sweeps=options.cd_sweeps)
    return codes, between.unsettled(h)


def solve_stage(stage: Stage, options: AdaRound) -> dict[str, LayerSolution]:
    """Learn the rounding of a stage's layers, as one stack of matrices.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. Errors are relative to the layer's full-precision output power.
    """
    weight, grid = stage.weight(), stage.grid()
    silent = ~stage.gram.hessian.diagonal(dim1=1, dim2=2).any(dim=1)
    codes, unsettled = learn_rounding(weight, grid, stage.gram, options)
    if silent.any():
        codes = torch.where(silent[:, None, None], quantize(weight, grid), codes)
        unsettled = unsettled.masked_fill(silent, 0.0)
    return layer_solutions(
        stage,
        weight,
        codes,
        details={"unsettled": unsettled},
        fallback=[NO_INPUT if nothing else None for nothing in stage.wholly(silent).tolist()],
    )

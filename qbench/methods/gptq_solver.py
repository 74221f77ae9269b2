"""GPTQ's column-by-column solver, on the grid it is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.methods.problem import LayerSolution
from qbench.methods.sequential import Stage
from qbench.methods.stage_error import layer_solutions
from qbench.quant.affine import AffineGrid, quantize, stack_rows


@dataclass(frozen=True)
class Factor:
    """The upper Cholesky factor of a damped inverse Hessian, and the damping that made it possible."""

    upper: Tensor
    damping: float


def inverse_factor(hessian: Tensor, percdamp: float) -> Factor | None:
    """Return U with ``(H + d mean(diag H) I)^-1 = U^T U``; None when no damping up to 1 makes H positive definite.

    Parameters
    ----------
    hessian : Tensor of shape (n, n)
        Symmetric, with a positive diagonal.
    percdamp : float
        The first d to be tried; each failure makes it ten times larger, up to 1.
    """
    damping = percdamp
    while True:
        damped = hessian.clone()
        damped.diagonal().add_(damping * hessian.diagonal().mean())
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and torch.isfinite(upper).all():
                return Factor(upper, damping)
        if damping == 1:
            break
        damping = min(10 * damping, 1.0)
    return None


def gptq_codes(weight: Tensor, grid: AffineGrid, upper: Tensor, block_size: int) -> Tensor:
    """Quantize a matrix column by column (Algorithm 1 of the paper).

    Parameters
    ----------
    weight : Tensor of shape (rows, n)
        In the order in which columns are to be quantized.
    grid : AffineGrid
        Scale and zero point by column already in that order: group_size 1, or one group.
    upper : Tensor of shape (n, n)
        U of `inverse_factor`, of the Hessian in the same order.
    block_size : int
        Columns updated eagerly.

    Returns
    -------
    Tensor of shape (rows, n)
        Codes.
    """
    rows, columns = weight.shape
    scale, zero_point = (part.expand(rows, columns) for part in grid.by_column(columns))
    low, high = grid.levels.quant_min, grid.levels.quant_max
    # Columns are walked over; as rows of the transpose they lie together in memory.
    remaining = weight.T.contiguous()  # (n, rows)
    scale, zero_point = scale.T.contiguous(), zero_point.T.contiguous()
    codes = torch.empty_like(remaining)
    diagonal = upper.diagonal().tolist()
    for start in range(0, columns, block_size):
        end = min(start + block_size, columns)
        errors = torch.empty_like(remaining[start:end])
        for column in range(start, end):
            w = remaining[column]  # (rows,)
            code = (w / scale[column]).round_().add_(zero_point[column]).clamp_(low, high)
            codes[column] = code
            error = (w - (code - zero_point[column]) * scale[column]) / diagonal[column]
            errors[column - start] = error
            if column + 1 < end:
                remaining[column + 1 : end].addr_(upper[column, column + 1 : end], error, alpha=-1)
        if end < columns:
            remaining[end:].addmm_(upper[start:end, end:].T, errors, alpha=-1)
    return codes.T.contiguous()


def solve_stage(stage: Stage, *, percdamp: float, block_size: int, act_order: bool) -> dict[str, LayerSolution]:
    """Quantize layers that share their input as one matrix.

    Parameters
    ----------
    stage : Stage
        Layers, and the Gram matrix of their input (the Hessian up to a factor, which does not matter).
    percdamp, block_size, act_order
        See `qbench.methods.gptq.GPTQ`.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. Errors are relative to the layer's output power.
    """
    rows = [layer.module.weight.shape[0] for layer in stage.layers]
    original = torch.cat([layer.module.weight.detach() for layer in stage.layers]).float()  # (all rows, n)
    grid = stack_rows([layer.grid for layer in stage.layers], rows)
    nearest = quantize(original, grid)
    dead = stage.gram.hessian.diagonal() == 0  # columns whose input is always 0
    codes, damping, fallback = nearest, None, None
    if dead.all():
        fallback = "rtn: all inputs of the layer are 0"
    elif factor_of := _prepare(stage.gram.hessian, dead, percdamp, act_order):
        factor, order = factor_of
        weight = original.masked_fill(dead, 0.0)[:, order]
        ordered = _permute(grid, order, original.shape[1])
        codes = gptq_codes(weight, ordered, factor.upper, block_size)[:, order.argsort()]
        damping = factor.damping
    else:
        fallback = "rtn: the Hessian is not positive definite at any damping up to 1"
    details = {"dead_columns": float(dead.sum())}
    return layer_solutions(stage, original, grid, codes, nearest, details=details, fallback=fallback, damping=damping)


def _prepare(hessian: Tensor, dead: Tensor, percdamp: float, act_order: bool) -> tuple[Factor, Tensor] | None:
    """Return the factor and the order of the columns."""
    hessian = hessian.clone()
    hessian.diagonal()[dead] = 1
    columns = torch.arange(len(hessian), device=hessian.device)
    order = hessian.diagonal().argsort(descending=True, stable=True) if act_order else columns
    factor = inverse_factor(hessian[order][:, order], percdamp)
    return None if factor is None else (factor, order)


def _permute(grid: AffineGrid, order: Tensor, columns: int) -> AffineGrid:
    if grid.scale.shape[1] == 1:
        return grid
    scale, zero_point = grid.by_column(columns)
    return AffineGrid(grid.levels, scale[:, order], zero_point[:, order], group_size=1)

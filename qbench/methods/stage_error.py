"""The layer error that post-training methods minimise, from the second moments of the inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from qbench.methods.problem import LayerSolution
from qbench.methods.sequential import Gram, Stage
from qbench.quant.affine import AffineGrid, dequantize


def stage_error(weight: Tensor, quantized: Tensor, gram: Gram) -> Tensor:
    """Return ``E|W x_fp - Wq x|^2`` of each output row.

    Parameters
    ----------
    weight, quantized : Tensor of shape (rows, in_features)
        W and Wq.
    gram : Gram
        Second moments of x and x_fp.

    Returns
    -------
    Tensor of shape (rows,)
        In units of the squared output. Expanded around ``Wq = W``, so that small errors keep their digits.
    """
    difference = weight - quantized
    # W x_fp - Wq x = (W - Wq) x + W (x_fp - x)
    own = ((difference @ gram.hessian) * difference).sum(dim=1)
    if gram.cross is gram.hessian:
        return own
    inherited = ((weight @ (gram.target - gram.cross - gram.cross.T + gram.hessian)) * weight).sum(dim=1)
    mixed = ((weight @ (gram.cross - gram.hessian)) * difference).sum(dim=1)
    return own + 2 * mixed + inherited


def output_power(weight: Tensor, gram: Gram) -> Tensor:
    """Return ``E|W x_fp|^2`` of each output row, of shape (rows,)."""
    return ((weight @ gram.target) * weight).sum(dim=1)


def layer_solutions(
    stage: Stage,
    weight: Tensor,
    grid: AffineGrid,
    codes: Tensor,
    nearest: Tensor,
    *,
    details: dict[str, float],
    fallback: str | None = None,
    damping: float | None = None,
) -> dict[str, LayerSolution]:
    """Cut a stage that was solved as one matrix into its layers, each with its errors.

    Parameters
    ----------
    stage : Stage
        The layers, in the order of their rows.
    weight : Tensor of shape (all rows, in_features)
        Full-precision weights.
    grid : AffineGrid
        The stacked grid.
    codes, nearest : Tensor of shape (all rows, in_features)
        The method's codes, and those of rounding to nearest.
    details, fallback, damping
        The same for all layers of the stage; see `LayerSolution`.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. Errors are relative to the layer's full-precision output power.
    """
    power = output_power(weight, stage.gram)
    error = stage_error(weight, dequantize(codes, grid), stage.gram)
    rtn_error = stage_error(weight, dequantize(nearest, grid), stage.gram)
    rows = [layer.module.weight.shape[0] for layer in stage.layers]
    solutions = {}
    for layer, own in zip(stage.layers, torch.arange(len(codes)).split(rows), strict=True):
        total = float(power[own].sum()) or 1.0
        solutions[layer.name] = LayerSolution(
            codes[own],
            layer.grid,
            objective=float(error[own].sum()) / total,
            rtn_objective=float(rtn_error[own].sum()) / total,
            fallback=fallback,
            damping=damping,
            details=dict(details),
        )
    return solutions

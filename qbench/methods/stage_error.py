"""The layer error that post-training methods minimise, from the second moments of the inputs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from qbench.methods.problem import LayerSolution
from qbench.methods.stage import Gram, Stage
from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize

NO_INPUT = "rtn: all inputs of the layer are 0"
"""The fallback of a layer that no method can learn anything of."""


def stage_error(weight: Tensor, quantized: Tensor, gram: Gram) -> Tensor:
    """Return ``E|W x_fp - Wq x|^2`` of each output row.

    Parameters
    ----------
    weight, quantized : Tensor of shape (stacks, rows, n)
        W and Wq.
    gram : Gram
        Second moments of x and x_fp.

    Returns
    -------
    Tensor of shape (stacks, rows)
        In units of the squared output. Expanded around ``Wq = W``, so that small errors keep their digits.
    """
    difference = weight - quantized
    # W x_fp - Wq x = (W - Wq) x + W (x_fp - x)
    own = ((difference @ gram.hessian) * difference).sum(dim=-1)
    if gram.is_symmetric:
        return own
    inherited = ((weight @ (gram.target - gram.cross - gram.cross.mT + gram.hessian)) * weight).sum(dim=-1)
    mixed = ((weight @ (gram.cross - gram.hessian)) * difference).sum(dim=-1)
    return own + 2 * mixed + inherited


def output_power(weight: Tensor, gram: Gram) -> Tensor:
    """Return ``E|W x_fp|^2`` of each output row, of shape (stacks, rows)."""
    return ((weight @ gram.target) * weight).sum(dim=-1)


def layer_solutions(
    stage: Stage,
    weight: Tensor,
    codes: Tensor,
    *,
    chosen: BlockGrid | None = None,
    details: dict[str, Tensor] | None = None,
    damping: Tensor | None = None,
    fallback: list[str | None] | None = None,
    errors: tuple[Tensor, Tensor, Tensor] | None = None,
) -> dict[str, LayerSolution]:
    """Cut a stage that was solved as one stack into its layers, each with its errors.

    Parameters
    ----------
    stage : Stage
        The layers.
    weight : Tensor of shape (stacks, rows, n)
        Full-precision weights.
    codes : Tensor of shape (stacks, rows, n)
        The method's codes.
    chosen : BlockGrid, optional
        What the codes stand for where the method chose scales of its own, with scales of shape (stacks, rows,
        n_groups); by default the stage's grid.
    details : dict of str to Tensor of shape (stacks,)
        Further numbers; a layer of several matrices gets their mean, or where they are integers their sum.
    damping : Tensor of shape (stacks,), optional
        Damping used; a layer of several matrices gets the largest.
    fallback : list of str or None, optional
        One a matrix; see `LayerSolution`.
    errors : tuple of three Tensor of shape (stacks, rows), optional
        Output power, the error of the codes and that of rounding to nearest, where the method knows them already.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. Errors are relative to the layer's full-precision output power, those of rounding to nearest are
        on the layer's given grid.
    """
    if errors is None:
        grid, gram = stage.grid(), stage.gram
        error = stage_error(weight, dequantize(codes, chosen or grid), gram)
        errors = (output_power(weight, gram), error, stage_error(weight, fake_quantize(weight, grid), gram))
    power, error_of, rtn_error = (stage.split(by_row[..., None]) for by_row in errors)
    own_codes = stage.split(codes)
    scales = {} if chosen is None else stage.split(chosen.scale)
    zero_points = {} if chosen is None else stage.split(chosen.zero_point)
    solutions = {}
    for part, own in zip(stage.parts, stage.places(), strict=True):
        whys = [why for why in (fallback or [])[own] if why]
        for layer in part:
            name = layer.name
            total = float(power[name].sum()) or 1.0
            solutions[name] = LayerSolution(
                own_codes[name],
                replace(layer.grid, scale=scales[name], zero_point=zero_points[name]) if scales else layer.grid,
                objective=float(error_of[name].sum()) / total,
                rtn_objective=float(rtn_error[name].sum()) / total,
                fallback=whys[0] if whys else None,
                damping=None if damping is None or whys else float(damping[own].max()),
                details={key: _together(value[own]) for key, value in (details or {}).items()},
            )
    return solutions


def _together(by_matrix: Tensor) -> float:
    return float(by_matrix.mean() if by_matrix.is_floating_point() else by_matrix.sum())

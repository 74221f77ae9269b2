"""GPTQ on a stage: dead inputs, order, damping, fallback, and what the record says of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qbench.methods.coordinate_descent import descend
from qbench.methods.gptq_scales import FreshScales, StaticScales, column_order
from qbench.methods.gptq_solver import feedback, gptq_values
from qbench.methods.ordered_grid import in_order
from qbench.methods.problem import LayerSolution
from qbench.methods.stage import Stage
from qbench.methods.stage_error import NO_INPUT, layer_solutions
from qbench.quant.block_grid import quantize

if TYPE_CHECKING:
    from qbench.methods.gptq import GPTQ

_INDEFINITE = "rtn: the Hessian is not positive definite at any damping up to 1"


def solve_stage(stage: Stage, options: GPTQ) -> dict[str, LayerSolution]:
    """Quantize layers that share their input, or have one shape, as one stack of matrices.

    Parameters
    ----------
    stage : Stage
        Layers, and the Gram matrix of their input (the Hessian up to a factor, which does not matter).
    options : GPTQ
        The method's options.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. ``damping`` is what was used after retries; ``dead_columns`` counts inputs that are always 0,
        ``damping_retries`` the failed factorizations, and with coordinate descent ``cd_gain`` is the share of GPTQ's
        layer error that it took away.
    """
    hessian, grid, original = stage.gram.hessian, stage.grid(), stage.weight()
    dead = hessian.diagonal(dim1=1, dim2=2) == 0
    order = column_order(hessian, options.act_order, grid.group_size)
    unchanged = options.act_order is False
    if not unchanged:
        hessian = in_order(in_order(hessian, order).mT, order)  # symmetric: rows, then columns
    weight = original.mT.contiguous() if unchanged else in_order(original.mT, order)
    if dead.any():
        # A weight whose input is always 0 becomes 0, and its column is cut loose from the others.
        now_dead = dead.gather(1, order)
        weight.masked_fill_(now_dead[..., None], 0.0)
        hessian = hessian.clone()
        hessian.diagonal(dim1=1, dim2=2).masked_fill_(now_dead, 1.0)
    fed = feedback(hessian, options.percdamp)
    given = StaticScales(grid, order, options.block_size)
    fresh = options.group_scales == "fresh" and grid.scale.shape[-1] > 1
    scales = FreshScales(stage, order) if fresh else given
    values = gptq_values(weight, scales, fed.weights, scales.widths)
    chosen = scales.chosen()
    on = (given if chosen is None else StaticScales(chosen, order, options.block_size)).grid

    # A layer that gets nothing but zeros has no Hessian at all; a single group of a convolution has dead inputs.
    silent = stage.wholly(dead.all(dim=1))
    lost = fed.failed | silent
    retries = torch.log10(fed.damping / options.percdamp).ceil()
    details = {"dead_columns": dead.sum(dim=1), "damping_retries": retries}
    error = before = fed.quadratic(on.errors(weight, values))
    if options.cd_sweeps:
        settings = {"sweeps": options.cd_sweeps, "block_size": options.block_size}
        values = descend(weight, values, hessian, on, **settings)
        error = fed.quadratic(on.errors(weight, values))
    rounded = given.grid.errors(weight, given.grid.nearest(weight))
    errors = (fed.quadratic(weight), error, fed.quadratic(rounded))
    codes = on.codes(values)
    codes = (codes if unchanged else in_order(codes, order.argsort(dim=1))).mT.contiguous()
    if lost.any():
        codes = torch.where(lost[:, None, None], quantize(original, grid), codes)
        if chosen is not None:
            chosen.scale[lost], chosen.zero_point[lost] = grid.scale[lost], grid.zero_point[lost]
    whys = [
        _INDEFINITE if indefinite else NO_INPUT if nothing else None
        for indefinite, nothing in zip(fed.failed.tolist(), silent.tolist(), strict=True)
    ]
    found = layer_solutions(
        stage,
        original,
        codes,
        chosen=chosen,
        details=details,
        damping=fed.damping,
        fallback=whys,
        errors=None if lost.any() else errors,
    )
    if options.cd_sweeps:
        first, last = (stage.split(by_row[..., None]) for by_row in (before, error))
        for name, solution in found.items():
            total = float(first[name].sum())
            gain = 1 - float(last[name].sum()) / total if total and solution.fallback is None else 0.0
            found[name] = replace(solution, details=solution.details | {"cd_gain": gain})
    return found

"""GPTQ on a stage: dead inputs, order, damping, fallback, and what the record says of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.methods import coordinate_descent
from qbench.methods.gptq_scales import FreshScales, StaticScales, column_order, ordered_parameters
from qbench.methods.gptq_solver import feedback, gptq_codes
from qbench.methods.problem import LayerSolution
from qbench.methods.stage import Stage
from qbench.methods.stage_error import layer_solutions
from qbench.quant.affine import AffineGrid, quantize

if TYPE_CHECKING:
    from qbench.methods.gptq import GPTQ

_NO_INPUT = "rtn: all inputs of the layer are 0"
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
    original, grid = stage.weight(), stage.grid()
    hessian = stage.gram.hessian
    dead = hessian.diagonal(dim1=1, dim2=2) == 0
    order = column_order(hessian, options.act_order, grid.group_size)
    ordered_hessian = _ordered(_ordered(hessian, order).mT, order)
    ordered_dead = dead.gather(1, order)
    # A weight whose input is always 0 becomes 0, and its column is cut loose from the others.
    weight = _ordered(original.mT, order).masked_fill(ordered_dead[..., None], 0.0)
    alive_hessian = ordered_hessian.clone()
    alive_hessian.diagonal(dim1=1, dim2=2).masked_fill_(ordered_dead, 1.0)
    fed = feedback(alive_hessian, options.percdamp)
    fresh = options.group_scales == "fresh" and grid.scale.shape[-1] > 1
    scales = FreshScales(stage, order) if fresh else StaticScales(grid, order, options.block_size)
    codes = gptq_codes(weight, grid.levels, scales, fed.weights, scales.widths)
    chosen = scales.chosen()

    # A layer that gets nothing but zeros has no Hessian at all; a single group of a convolution has dead inputs.
    silent = torch.cat([dead[own].all().expand(own.stop - own.start) for own in stage.places()])
    lost = fed.failed | silent
    details = {
        "dead_columns": dead.sum(dim=1),
        "damping_retries": torch.log10(fed.damping / options.percdamp).ceil(),
    }
    if options.cd_sweeps:
        codes, details["cd_gain"] = _descend(options, weight, codes, ordered_hessian, order, chosen or grid)
    codes = codes.gather(1, order.argsort(dim=1)[..., None].expand_as(codes)).mT.contiguous()
    if lost.any():
        codes = torch.where(lost[:, None, None], quantize(original, grid), codes)
        if chosen is not None:
            chosen.scale[lost], chosen.zero_point[lost] = grid.scale[lost], grid.zero_point[lost]
    whys = [
        _INDEFINITE if indefinite else _NO_INPUT if nothing else None
        for indefinite, nothing in zip(fed.failed.tolist(), silent.tolist(), strict=True)
    ]
    return layer_solutions(stage, original, codes, chosen=chosen, details=details, damping=fed.damping, fallback=whys)


def _descend(
    options: GPTQ, weight: Tensor, codes: Tensor, hessian: Tensor, order: Tensor, grid: AffineGrid
) -> tuple[Tensor, Tensor]:
    """Return codes after coordinate descent, and the share of the layer error that it took away."""
    scale, zero_point = (ordered_parameters(part, order) for part in grid.by_column(order.shape[1]))
    settings = {"sweeps": options.cd_sweeps, "block_size": options.block_size}
    better = coordinate_descent.descend(weight, codes, hessian, grid.levels, scale, zero_point, **settings)
    before, after = (
        coordinate_descent.objective(weight, (found - zero_point) * scale, hessian) for found in (codes, better)
    )
    return better, torch.where(before > 0, 1 - after / before, 0.0)


def _ordered(by_column: Tensor, order: Tensor) -> Tensor:
    """Return (stacks, n, anything) with the columns, which come second, in order."""
    return by_column.gather(1, order[..., None].expand(*order.shape, by_column.shape[2]))

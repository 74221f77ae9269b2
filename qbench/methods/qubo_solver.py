"""Coordinate descent from rounding to nearest, on the second moments of a stage's inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qbench.methods.neighbour_descent import descend
from qbench.methods.problem import LayerSolution
from qbench.methods.soft_rounding import Neighbours
from qbench.methods.stage import Stage
from qbench.methods.stage_error import NO_INPUT, layer_solutions
from qbench.quant.block_grid import quantize

if TYPE_CHECKING:
    from qbench.methods.qubo import QuadraticRounding


def solve_stage(stage: Stage, options: QuadraticRounding) -> dict[str, LayerSolution]:
    """Round a stage's layers, as one stack of matrices.

    Returns
    -------
    dict of str to LayerSolution
        By layer name. Errors are relative to the layer's full-precision output power; the detail ``flipped`` is the
        share of weights that are not at their nearest level.
    """
    weight, grid, gram = stage.weight(), stage.grid(), stage.gram
    nearest = quantize(weight, grid)
    wanted = torch.bmm(weight, gram.cross)
    codes = descend(nearest, Neighbours.of(weight, grid), wanted, gram.hessian, sweeps=options.sweeps)
    silent = ~gram.hessian.diagonal(dim1=1, dim2=2).any(dim=1)
    fallback = [NO_INPUT if nothing else None for nothing in stage.wholly(silent).tolist()]
    found = layer_solutions(stage, weight, codes, fallback=fallback)
    flipped = stage.split((codes != nearest).float())
    return {name: replace(one, details={"flipped": float(flipped[name].mean())}) for name, one in found.items()}

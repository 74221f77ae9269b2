"""Weights that are trained in full precision and quantized afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.errors import CellError, DivergedError
from qbench.methods.fine_tune import FullPrecisionTraining
from qbench.methods.gptq import GPTQ
from qbench.methods.latent import LatentWeight
from qbench.methods.problem import LayerSolution, Problem, Solution, TargetLayer
from qbench.quant.block_grid import BlockGrid, fake_quantize, quantize
from qbench.quantizers.layout import choose_grid

if TYPE_CHECKING:
    from qbench.methods.ft_then_ptq import FineTuningThenPTQ


class TrainedWeight(LatentWeight):
    """A weight in full precision that is to be quantized when its training is over.

    Parameters
    ----------
    layer : TargetLayer
        The layer, its first grid, and what chooses another one.
    options : FineTuningThenPTQ
        Whether the grid is chosen again.

    Raises
    ------
    CellError
        The grid is to be chosen again and the layer has no quantizer that could.
    """

    def __init__(self, layer: TargetLayer, options: FineTuningThenPTQ) -> None:
        super().__init__(layer)
        self._again, self._first = options.grid == "again", layer.matrix().clone()
        if self._again and layer.quantizer is None:
            raise CellError(
                f"layer {layer.name!r} has a grid but no quantizer, which grid: again needs to choose another one "
                "(allowed here: grid: given)"
            )

    def grid(self) -> BlockGrid:
        """Return the grid of the weight as it is now.

        Raises
        ------
        DivergedError
            The weight holds NaN or infinity.
        """
        matrix = self.layer.matrix()
        if not torch.isfinite(matrix).all():
            raise DivergedError(f"the weight of layer {self.layer.name!r} became NaN or infinite")
        if not self._again:
            return self.layer.grid
        assert self.layer.quantizer is not None
        return choose_grid(matrix, self.layer.quantizer, self.layer.grid.levels.bits)

    def deployed(self) -> Tensor:
        """Return the nearest levels of the weight on the grid that it would have now, whatever rounds it in the end."""
        return fake_quantize(self.layer.matrix(), self.grid())

    def nearest(self, grid: BlockGrid) -> LayerSolution:
        """Return the weight rounded to nearest."""
        return LayerSolution(quantize(self.layer.matrix(), grid), grid.copy())

    def moved(self) -> float:
        """Return how far training has moved the weight, relative to what it was, in the sum of magnitudes."""
        return float((self.layer.matrix() - self._first).abs().sum() / self._first.abs().sum().clamp(min=1e-30))


@torch.no_grad()
def quantize_trained(
    problem: Problem,
    options: FineTuningThenPTQ,
    weights: Sequence[TrainedWeight],
    training: FullPrecisionTraining,
) -> Solution:
    """Quantize a model whose target layers have been trained.

    Parameters
    ----------
    problem : Problem
        Its model holds the trained weights.
    options : FineTuningThenPTQ
        What rounds them.
    weights : sequence of TrainedWeight
        One for each target layer.
    training : FullPrecisionTraining
        What the training used and saw.

    Returns
    -------
    Solution
        Errors of layers are relative to the trained weights' outputs.
    """
    grids = {weight.layer.name: weight.grid() for weight in weights}
    moved = {weight.layer.name: weight.moved() for weight in weights}
    if options.ptq == "gptq":
        found = GPTQ(name="gptq").solve(_on(problem, grids))
    else:
        found = Solution({weight.layer.name: weight.nearest(grids[weight.layer.name]) for weight in weights})
        for weight in weights:
            weight.layer.write(found.layers[weight.layer.name].weight())
    return replace(
        found,
        layers={
            name: replace(layer, details={"moved_l1": moved[name], **layer.details})
            for name, layer in found.layers.items()
        },
        train_tokens=training.train_tokens,
        train_steps=training.train_steps,
        watched_seconds=training.watched_seconds,
        traces=training.traces,
        statistics=training.statistics,
    )


def _on(problem: Problem, grids: dict[str, BlockGrid]) -> Problem:
    """Return the problem with other grids."""
    blocks = [
        replace(block, layers=tuple(replace(layer, grid=grids[layer.name]) for layer in block.layers))
        for block in problem.blocks
    ]
    return replace(problem, blocks=blocks)

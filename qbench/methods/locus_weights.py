"""Latent weights on a grid that stays, whose gradient is taken elsewhere than at their levels, or is another one."""

from __future__ import annotations

import torch
from torch import Tensor

from qbench.methods.latent import QuantizedWeight
from qbench.methods.problem import Problem, TargetLayer
from qbench.quant.block_grid import BlockGrid, quantize
from qbench.quant.grid import IntegerGrid


class FrozenGridWeight(QuantizedWeight):
    """Round to nearest on the given grid, with a straight-through gradient: `ste_qat` at its defaults."""

    def grid(self) -> BlockGrid:
        """Return the given grid."""
        return self.layer.grid


class PlainWeight(FrozenGridWeight):
    """The model computes with the latent weight itself, and its levels are only deployed."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Give the model the latent weight of then; see `LatentWeight.restore`."""
        self.write()

    @torch.no_grad()
    def write(self) -> None:
        """Give the model the latent weight."""
        self._target.copy_(self._matrix)
        self._hand_over()


class NoisyWeight(FrozenGridWeight):
    """The model computes with the latent weight plus noise as wide as a cell of the grid.

    Parameters
    ----------
    layer : TargetLayer
        The layer and its grid.
    generator : torch.Generator
        On the layer's device; every write draws a number for each weight.
    """

    def __init__(self, layer: TargetLayer, generator: torch.Generator) -> None:
        super().__init__(layer)
        self._generator = generator

    @torch.no_grad()
    def write(self) -> None:
        """Give the model the latent weight with new noise."""
        matrix = self._matrix
        noise = torch.rand(matrix.shape, generator=self._generator, device=matrix.device).sub_(0.5)
        self._target.copy_(noise.mul_(cell_widths(matrix, self.grid())).add_(matrix))
        self._hand_over()

    def state(self) -> dict[str, Tensor]:
        """Return the weight with its noise, and where the generator is."""
        return super().state() | {"noisy": self._weight.detach(), "generator": self._generator.get_state()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with the noise of then; see `LatentWeight.restore`."""
        self._weight.copy_(state["noisy"])
        self._generator.set_state(state["generator"])


class RandomDirectionWeight(FrozenGridWeight):
    """The model computes with the levels, and the latent weight is moved as far as it would be, in another direction.

    Parameters
    ----------
    layer : TargetLayer
        The layer and its grid.
    generator : torch.Generator
        On the layer's device; every gradient draws a number for each weight.
    """

    def __init__(self, layer: TargetLayer, generator: torch.Generator) -> None:
        super().__init__(layer)
        self._generator = generator

    def gradient_to_latent(self, gradient: Tensor) -> Tensor:
        """Return a direction that is uniform on the sphere, as long as the gradient of the layer."""
        direction = torch.randn(gradient.shape, generator=self._generator, device=gradient.device)
        length, drawn = (torch.linalg.vector_norm(one) for one in (gradient, direction))
        return direction.mul_(length / drawn)

    def state(self) -> dict[str, Tensor]:
        """Return where the generator is."""
        return super().state() | {"generator": self._generator.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with the directions of then; see `LatentWeight.restore`."""
        super().restore(state)
        self._generator.set_state(state["generator"])


def generator_of(problem: Problem, purpose: str) -> torch.Generator:
    """Return the generator of a named stream of a cell, on the device of its weights."""
    device = problem.layers[0].weight.device
    return torch.Generator(device).manual_seed(problem.seed_of(purpose))


def cell_widths(weight: Tensor, grid: BlockGrid) -> Tensor:
    """Return how far apart the levels are at each weight.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        Latent weights.
    grid : BlockGrid
        The grid.

    Returns
    -------
    Tensor of shape (1 or rows, 1 or columns)
        In units of the weight: on integers the scale, on other levels the width of the cell of the nearest level, whose
        ends are halfway to its two neighbours. The cells of the first and the last level end as far beyond the level as
        they do on its other side.
    """
    scale, snapping = grid.on_matrix(weight)
    if isinstance(grid.levels, IntegerGrid):
        return scale
    codes = quantize(weight, grid)
    below, above = (codes - 1).clamp_(min=grid.levels.quant_min), (codes + 1).clamp_(max=grid.levels.quant_max)
    return (snapping.values(above) - snapping.values(below)).div_(above - below).mul_(scale)

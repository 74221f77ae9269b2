"""The method `stochastic`: the best of several draws of rounding at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.plugin import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from qbench.plugin import BlockGrid, LayerSolution, Problem, Solution, TargetLayer


class StochasticRounding(Method):
    """Round weights at random, the nearer level the more often; keep the best of several draws, row by row.

    Best is the draw with the least squared error of the row's output on a batch of calibration data. Rounding to
    nearest is the first draw, so that no row is worse than with it.

    Attributes
    ----------
    draws : int
        Draws, with rounding to nearest as one of them.
    spread : float
        How often the farther level is drawn. At 1 the mean of many draws is the weight itself; at 0 none is drawn.
    """

    version: ClassVar[int] = 1

    draws: Annotated[int, Field(ge=1)] = 16
    spread: Annotated[float, Field(ge=0, le=1)] = 0.1

    def solve(self, problem: Problem) -> Solution:
        """Return the best draw of every row of every layer."""
        import torch

        from qbench.plugin import Solution

        chance = torch.Generator().manual_seed(problem.seed_of("stochastic"))
        inputs = _inputs_of_layers(problem)
        with torch.no_grad():
            layers = {layer.name: self._best(layer, inputs[layer.name], chance) for layer in problem.layers}
        return Solution(layers, calibration_tokens=problem.tokens_of(problem.calibration[0]))

    def _best(self, layer: TargetLayer, inputs: list[Tensor], chance: torch.Generator) -> LayerSolution:
        import torch

        from qbench.plugin import LayerSolution, dequantize, quantize

        # The matrix may be the layer's own memory, which is written to below.
        weight, grid = layer.matrix().clone(), layer.grid
        best = quantize(weight, grid)
        if not inputs:
            return LayerSolution(best, grid, fallback="rtn: the layer was not used by the calibration batch")
        wanted = [layer.module(given) for given in inputs]

        def errors_of(codes: Tensor) -> Tensor:
            layer.write(dequantize(codes, grid))
            errors = [_by_row(layer.module(given) - one) for given, one in zip(inputs, wanted, strict=True)]
            return torch.stack(errors).sum(dim=0)

        power = sum(float(_by_row(one).sum()) for one in wanted) or 1.0
        least = errors_of(best)
        nearest = float(least.sum()) / power
        for _ in range(self.draws - 1):
            codes = round_at_random(weight, grid, self.spread, chance)
            errors = errors_of(codes)
            better = errors < least
            best, least = codes.where(better[:, None], best), errors.where(better, least)
        layer.write(weight)
        return LayerSolution(best, grid, objective=float(least.sum()) / power, rtn_objective=nearest)


def round_at_random(weight: Tensor, grid: BlockGrid, spread: float, chance: torch.Generator) -> Tensor:
    """Return codes of the level below or above each weight.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        What is rounded. Beyond the last level there is nothing to draw.
    grid : BlockGrid
        Any levels: a larger code is a higher level, whatever they are.
    spread : float
        The farther level is drawn with this share of the chance that makes the mean of many draws the weight.
    chance : torch.Generator
        On the CPU, so that every device draws the same.
    """
    import torch

    from qbench.plugin import dequantize, quantize

    near = quantize(weight, grid)
    value = dequantize(near, grid)
    far = (near + (weight - value).sign()).clamp(grid.levels.quant_min, grid.levels.quant_max)
    gap = (dequantize(far, grid) - value).abs()
    share = torch.where(gap > 0, (weight - value).abs() / gap.clamp(min=1e-30), 0.0)
    drawn = torch.rand(weight.shape, generator=chance).to(weight.device)
    return torch.where(drawn < spread * share, far, near)


def _by_row(output: Tensor) -> Tensor:
    """Return the sum of squares of each output channel: rows of the layer's matrix."""
    channels = output.movedim(1, -1) if output.ndim == 4 else output  # Conv2d has them second, all others last
    return channels.square().flatten(0, -2).sum(dim=0)


def _inputs_of_layers(problem: Problem) -> dict[str, list[Tensor]]:
    """Return what each layer is given while the model runs on the first batch of calibration data."""
    import torch

    kept: dict[str, list[Tensor]] = {layer.name: [] for layer in problem.layers}

    def keep(name: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, given: kept[name].append(given[0].detach())

    hooks = [layer.module.register_forward_pre_hook(keep(layer.name)) for layer in problem.layers]
    try:
        with torch.no_grad():
            problem.forward(problem.model, problem.calibration[0])
    finally:
        for hook in hooks:
            hook.remove()
    return kept

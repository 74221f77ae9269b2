"""The training loop of STE-QAT and LSQ."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qbench.errors import DivergedError
from qbench.methods.problem import LayerSolution, Problem, Solution, TargetLayer
from qbench.quant.affine import AffineGrid, quantize
from qbench.quant.ste import fake_quantize_lsq, fake_quantize_ste

if TYPE_CHECKING:
    from qbench.methods.lsq import LearnedStepSize
    from qbench.methods.qat_options import QuantizationAwareTraining


class QuantizedWeight(nn.Module):
    """A parametrization that puts a quantized weight in the place of the latent one."""

    def grid(self) -> AffineGrid:
        """Return the grid as it is now."""
        raise NotImplementedError

    def step_sizes(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups beside the latent weight."""
        return []

    def after_update(self) -> None:
        """Restore what must hold after each optimizer step."""


class StraightThroughWeight(QuantizedWeight):
    """Round to nearest on a fixed grid, straight-through gradient."""

    def __init__(self, layer: TargetLayer, *, masked: bool) -> None:
        super().__init__()
        self._grid, self._masked = layer.grid, masked

    def forward(self, latent: Tensor) -> Tensor:
        """Return the quantized weight, of the latent weight's shape."""
        return fake_quantize_ste(latent, self._grid, masked=self._masked)

    def grid(self) -> AffineGrid:
        """Return the fixed grid."""
        return self._grid


class LearnedStepWeight(QuantizedWeight):
    """Round to nearest with learned step sizes."""

    def __init__(self, layer: TargetLayer, options: LearnedStepSize) -> None:
        super().__init__()
        weight, self._grid = layer.module.weight.detach(), layer.grid
        first = self._grid.scale.clone()
        # On an unsigned grid with a zero point, the reach of the levels on either side is about half of them.
        reach = self._grid.levels.quant_max if self._grid.levels.symmetric else 2 ** (self._grid.levels.bits - 1) - 1
        if options.init == "lsq":
            mean = _mean_magnitude(weight, self._grid)
            first = torch.where(mean > 0, mean * 2 / math.sqrt(reach), first)  # weights that are all 0 keep the grid's
        shared = weight.numel() if options.gradient_scale == "layer" else weight.numel() / first.numel()
        self.gain = 1 / math.sqrt(shared * reach)
        self.step_size = nn.Parameter(first)
        self._least = first * 1e-3
        self._rate = options.step_size_learning_rate or options.learning_rate * float(first.mean())

    def forward(self, latent: Tensor) -> Tensor:
        """Return the quantized weight, of the latent weight's shape."""
        return fake_quantize_lsq(latent, self.step_size, self._grid, self.gain)

    def grid(self) -> AffineGrid:
        """Return the grid at the learned step sizes."""
        return self._grid.with_scale(self.step_size.detach().clone())

    def step_sizes(self) -> list[dict[str, Any]]:
        """Return the step sizes with their own rate."""
        return [{"params": [self.step_size], "lr": self._rate}]

    @torch.no_grad()
    def after_update(self) -> None:
        """Keep the step sizes positive."""
        self.step_size.copy_(self.step_size.maximum(self._least))


def train(
    problem: Problem, options: QuantizationAwareTraining, quantized: Callable[[TargetLayer], QuantizedWeight]
) -> Solution:
    """Train the latent weights of all target layers through their quantizers.

    Parameters
    ----------
    problem : Problem
        Model, loss and training batches.
    options : QuantizationAwareTraining
        Budget and optimizer.
    quantized : callable
        Makes the parametrization of a layer.

    Returns
    -------
    Solution
        The nearest codes of the last latent weights; the trace ``train_loss`` is that of the quantized model before
        each update.

    Raises
    ------
    DivergedError
        The training loss is NaN or infinite.
    """
    model, layers = problem.model, problem.layers
    model.requires_grad_(requires_grad=False)
    first = {layer.name: layer.module.weight.detach().clone() for layer in layers}
    weights: dict[str, QuantizedWeight] = {}
    groups: list[dict[str, Any]] = []
    for layer in layers:
        weights[layer.name] = quantized(layer)
        layer.module.weight.requires_grad_()
        parametrize.register_parametrization(layer.module, "weight", weights[layer.name], unsafe=True)
        groups.append({"params": [_latent(layer)], "lr": options.learning_rate})
        groups += weights[layer.name].step_sizes()
    optimizer = _optimizer(groups, options)
    peaks = [group["lr"] for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    losses: list[float] = []
    tokens = 0
    model.train()
    batches = problem.train_batches(options.batch_size, problem.seed_of("train-batches"))
    for step, batch in enumerate(islice(batches, options.steps)):
        share = 0.5 * (1 + math.cos(math.pi * step / options.steps)) if options.schedule == "cosine" else 1.0
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        loss = problem.loss(model, batch)
        loss.backward()
        if options.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, options.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        for weight in weights.values():
            weight.after_update()
        losses.append(loss.item())
        tokens += problem.tokens_of(batch)
        if not math.isfinite(losses[-1]):
            raise DivergedError(f"the training loss became {losses[-1]} at step {step + 1} of {options.steps}")
    model.eval()

    found = {}
    for layer in layers:
        grid = weights[layer.name].grid()
        latent = _latent(layer).detach()
        moved = float((latent - first[layer.name]).abs().sum() / first[layer.name].abs().sum())
        found[layer.name] = LayerSolution(quantize(latent, grid), grid, details={"moved_l1": moved})
        parametrize.remove_parametrizations(layer.module, "weight")
    return Solution(found, train_tokens=tokens, train_steps=options.steps, traces={"train_loss": losses})


def _latent(layer: TargetLayer) -> nn.Parameter:
    latent: nn.Parameter = layer.module.parametrizations.weight.original  # type: ignore[union-attr, assignment]
    return latent


def _mean_magnitude(weight: Tensor, grid: AffineGrid) -> Tensor:
    """Return the mean of ``|w|`` over the weights that share a scale, in the shape of the scale."""
    if grid.scale.shape[0] == 1:
        weight = weight.reshape(1, -1)
    width = weight.shape[1] if grid.scale.shape[1] == 1 else grid.group_size
    return torch.cat([part.abs().mean(dim=1, keepdim=True) for part in weight.split(width, dim=1)], dim=1)


def _optimizer(groups: list[dict[str, Any]], options: QuantizationAwareTraining) -> torch.optim.Optimizer:
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

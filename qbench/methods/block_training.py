"""Straight-through training of a block's weights and step sizes on the block's output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.errors import DivergedError
from qbench.methods.problem import LayerSolution, Problem, Solution, TargetLayer
from qbench.methods.reconstruction import BlockTask, block_tasks
from qbench.quant.block_grid import BlockGrid, dequantize, quantize
from qbench.quant.ste import fake_quantize_lsq, fake_quantize_ste

if TYPE_CHECKING:
    from qbench.methods.block_ap import BlockAP

# A step size stays above this share of its first value.
_LEAST = 1e-3


class _LatentLayer:
    """A layer's latent matrix, and its step sizes where they are trained."""

    def __init__(self, layer: TargetLayer, *, scales: bool) -> None:
        self.layer = layer
        self.first = layer.matrix().clone(memory_format=torch.contiguous_format)
        self.matrix = self.first.clone().requires_grad_()
        self.scale = layer.grid.scale.clone().requires_grad_() if scales else None

    def grid(self) -> BlockGrid:
        return self.layer.grid if self.scale is None else self.layer.grid.with_scale(self.scale.detach().clone())

    def quantized(self) -> Tensor:
        if self.scale is None:
            return fake_quantize_ste(self.matrix, self.layer.grid, masked=True)
        return fake_quantize_lsq(self.matrix, self.scale, self.layer.grid, 1.0)

    def after_update(self) -> None:
        if self.scale is not None:
            torch.maximum(self.scale.detach(), self.layer.grid.scale * _LEAST, out=self.scale.detach())

    def codes(self) -> Tensor:
        return quantize(self.matrix.detach(), self.grid())

    def moved(self) -> float:
        size = float(self.first.abs().sum())
        return float((self.matrix.detach() - self.first).abs().sum()) / size if size else 0.0


def solve(problem: Problem, options: BlockAP) -> Solution:
    """Train the blocks of a model one after the other.

    Parameters
    ----------
    problem : Problem
        Model, blocks and calibration data.
    options : BlockAP
        Budget and rates.

    Raises
    ------
    DivergedError
        The loss of a block is NaN or infinite.
    """
    generator = torch.Generator().manual_seed(problem.seed_of("reconstruction"))
    layers: dict[str, LayerSolution] = {}
    traces: dict[str, list[float]] = {}
    steps = 0
    for index, task in enumerate(block_tasks(problem, options.batch_size)):
        found, losses = train(task, options, generator)
        traces[f"block_loss/{index}"] = losses
        for layer in task.block.layers:
            layers[layer.name] = found[layer.name]
            layer.write(found[layer.name].weight())
        steps += len(losses)
    # No training data: steps go over the calibration data again, and the loss is a block's own.
    return Solution(layers, calibration_tokens=problem.calibration_tokens, train_steps=steps, traces=traces)


def train(
    task: BlockTask, options: BlockAP, generator: torch.Generator
) -> tuple[dict[str, LayerSolution], list[float]]:
    """Train all layers of a block.

    Parameters
    ----------
    task : BlockTask
        The block and its data.
    options : BlockAP
        Budget and rates.
    generator : torch.Generator
        Draws the order of the mini-batches.

    Returns
    -------
    tuple
        Solutions by layer name, and the loss on each mini-batch relative to that of rounding to nearest.
    """
    latent = [_LatentLayer(layer, scales=options.train == "weights_and_scales") for layer in task.block.layers]
    scales = [one.scale for one in latent if one.scale is not None]
    groups = [{"params": [one.matrix for one in latent], "lr": options.learning_rate}]
    if scales:
        groups.append({"params": scales, "lr": options.scale_learning_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    power, rtn_error = task.power(), task.rtn_error()
    unit = rtn_error or 1.0
    steps = options.epochs * len(task.batches)
    losses: list[float] = []
    for step, batch in enumerate(task.draws(steps, generator)):
        share = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        with torch.enable_grad():
            error = batch.error(task.working([one.quantized() for one in latent], batch.seen, batch.rest))
            # AdamW takes the loss in any unit, down to its epsilon: in this one small outputs do not come near that.
            gradients = torch.autograd.grad(error / unit, parameters)
        losses.append(float(error.detach()) / unit)
        if not math.isfinite(losses[-1]):
            raise DivergedError(f"the loss of a block became {losses[-1]} at step {step + 1} of {steps}")
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.contiguous()
        optimizer.step()
        for one in latent:
            one.after_update()
    found = {one.layer.name: (one.codes(), one.grid()) for one in latent}
    error_now = task.error([dequantize(*found[one.layer.name]) for one in latent])
    block = {"block_error": error_now / power, "rtn_block_error": rtn_error / power}
    solutions = {
        one.layer.name: LayerSolution(*found[one.layer.name], details={"moved_l1": one.moved(), **block})
        for one in latent
    }
    return solutions, losses

"""BRECQ's learned rounding of a block's layers on the block's output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.errors import DivergedError
from qbench.methods.adaround import AdaRound
from qbench.methods.adaround_solver import learn_rounding
from qbench.methods.problem import Block, LayerSolution, Problem, Solution
from qbench.methods.reconstruction import BlockTask, block_tasks
from qbench.methods.sequential import walk
from qbench.methods.soft_rounding import Neighbours, beta_at, rectified, regularizer_gradient, soft_weight
from qbench.methods.stage import Stage
from qbench.quant.block_grid import dequantize

if TYPE_CHECKING:
    from qbench.methods.brecq import BRECQ


def solve(problem: Problem, options: BRECQ) -> Solution:
    """Reconstruct the blocks of a model one after the other.

    Parameters
    ----------
    problem : Problem
        Model, blocks and calibration data.
    options : BRECQ
        Budget, rates and annealing.
    """
    generator = torch.Generator().manual_seed(problem.seed_of("reconstruction"))
    layers: dict[str, LayerSolution] = {}
    traces: dict[str, list[float]] = {}
    stages = walk(problem, true_sequential=False, full_precision_targets=True)
    for index, task in enumerate(block_tasks(problem, options.batch_size, fisher=options.loss == "fisher")):
        rounded = _rounded_alone(stages, task.block) if options.init == "adaround" else None
        found, traces[f"block_loss/{index}"] = rebuild(task, options, generator, rounded)
        for layer in task.block.layers:
            layers[layer.name] = found[layer.name]
            layer.write(found[layer.name].weight())
    return Solution(
        layers,
        calibration_tokens=problem.calibration_tokens,
        train_steps=options.iterations * len(problem.blocks),
        traces=traces,
    )


def rebuild(
    task: BlockTask, options: BRECQ, generator: torch.Generator, rounded: dict[str, Tensor] | None = None
) -> tuple[dict[str, LayerSolution], list[float]]:
    """Learn the rounding of all layers of a block.

    Parameters
    ----------
    task : BlockTask
        The block and its data.
    options : BRECQ
        Budget, rates and annealing.
    generator : torch.Generator
        Draws the order of the mini-batches.
    rounded : dict of str to Tensor of shape (rows, columns), optional
        Codes by layer name from which V starts; by default it starts at the full-precision weights.

    Returns
    -------
    tuple
        Solutions by layer name, and the loss on each mini-batch relative to that of rounding to nearest.

    Raises
    ------
    DivergedError
        The loss is NaN or infinite.
    """
    layers = task.block.layers
    between = [Neighbours.of(layer.matrix(), layer.grid) for layer in layers]
    power, rtn_error = task.power(), task.rtn_error()
    if rounded is None:
        variables = [one.start().requires_grad_() for one in between]
    else:
        pairs = zip(between, layers, strict=True)
        variables = [one.start_at(rounded[layer.name]).requires_grad_() for one, layer in pairs]
    weights = sum(v.numel() for v in variables)
    gain = weights / rtn_error if rtn_error > 1e-30 * power else 0.0
    optimizer = torch.optim.Adam(variables, lr=options.learning_rate, fused=True)
    losses: list[float] = []
    for iteration, batch in enumerate(task.draws(options.iterations, generator)):
        with torch.enable_grad():
            matrices = [soft_weight(v, one) for v, one in zip(variables, between, strict=True)]
            error = batch.error(task.working(matrices, batch.seen, batch.rest))
            gradients = torch.autograd.grad(error * gain, variables)
        beta = beta_at(iteration, options)
        for v, gradient in zip(variables, gradients, strict=True):
            v.grad = gradient
            if beta is not None and options.regularization > 0:
                h, slope = rectified(v.detach())
                v.grad = gradient.add(regularizer_gradient(h, beta).mul_(slope), alpha=options.regularization)
        optimizer.step()
        losses.append(float(error.detach()) / (rtn_error or 1.0))
        if not math.isfinite(losses[-1]):
            raise DivergedError(
                f"the loss of a block became {losses[-1]} at step {iteration + 1} of {options.iterations}"
            )
    hs = [rectified(v.detach())[0] for v in variables]
    codes = [one.harden(h) for one, h in zip(between, hs, strict=True)]
    error_now = task.error([dequantize(code, layer.grid) for code, layer in zip(codes, layers, strict=True)])
    block = {"block_error": error_now / power, "rtn_block_error": rtn_error / power}
    found = {}
    for layer, one, h, code in zip(layers, between, hs, codes, strict=True):
        found[layer.name] = LayerSolution(code, layer.grid, details={"unsettled": float(one.unsettled(h)), **block})
    return found, losses


def _rounded_alone(stages: Iterator[Stage], block: Block) -> dict[str, Tensor]:
    """Return AdaRound's codes of a block's layers, each solved on its own; `stages` is a walk that stands before it."""
    found: dict[str, Tensor] = {}
    options = AdaRound(name="adaround")
    for stage in stages:
        codes, _ = learn_rounding(stage.weight(), stage.grid(), stage.gram, options)
        found.update(stage.split(codes))
        if len(found) == len(block.layers):
            break
    return found

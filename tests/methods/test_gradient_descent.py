"""Plain gradient descent, and training at a rate of 0: the ends of what the options of a training allow."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.methods.base import Method
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.problem import Problem
from qbench.methods.qat import LearnedStepWeight
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import fake_quantize, quantize

MakeProblem = Callable[..., Problem]

STEPS = 3
PLAIN: dict[str, Any] = {
    "name": "ste_qat",
    "steps": STEPS,
    "batch_size": 4,
    "optimizer": "sgd",
    "schedule": "constant",
    "clip_norm": None,
}
GRIDS: list[dict[str, Any]] = [
    {},
    {"granularity": "per_tensor", "symmetric": False},
    {"granularity": {"per_group": 12}, "symmetric": False},
]
both = pytest.mark.parametrize("kind", [StraightThroughQAT, LearnedStepSize])
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


@both
@each_grid
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_rate_of_nothing_is_rounding_to_nearest(
    make_problem: MakeProblem, kind: type[Method], grid: dict[str, Any], optimizer: str
) -> None:
    method = kind.model_validate({"name": "qat", "steps": 3, "optimizer": optimizer, "learning_rate": 0})
    solution = method.solve(make_problem(**grid))
    assert solution.train_steps == 3
    for layer in make_problem(**grid).layers:
        found = solution.layers[layer.name]
        assert torch.equal(found.codes, quantize(layer.module.weight.detach(), layer.grid))
        assert torch.equal(found.grid.scale, layer.grid.scale)
        assert found.details["moved_l1"] == 0


def test_step_sizes_do_not_move_at_a_rate_of_nothing(make_problem: MakeProblem) -> None:
    problem, options = make_problem(), LearnedStepSize(name="lsq", steps=STEPS, init="lsq", learning_rate=0)
    first = {layer.name: LearnedStepWeight(layer, options).grid() for layer in problem.layers}
    weights = {layer.name: layer.matrix().clone() for layer in problem.layers}
    for name, found in options.solve(problem).layers.items():
        assert torch.equal(found.grid.scale, first[name].scale)
        assert torch.equal(found.codes, quantize(weights[name], first[name]))


@each_grid
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_gradient_descent_by_hand(make_problem: MakeProblem, grid: dict[str, Any], momentum: float) -> None:
    rate, problem = 0.3, make_problem(**grid)
    options = StraightThroughQAT.model_validate(PLAIN | {"momentum": momentum, "learning_rate": rate})
    solution = options.solve(make_problem(**grid))
    weights = [layer.module.weight for layer in problem.layers]
    latents = [weight.detach().clone() for weight in weights]
    velocities = [torch.zeros_like(latent) for latent in latents]
    for batch in itertools.islice(problem.train_batches(4, problem.seed_of("train-batches")), STEPS):
        for layer, weight, latent in zip(problem.layers, weights, latents, strict=True):
            weight.data.copy_(fake_quantize(latent, layer.grid))
        gradients = torch.autograd.grad(problem.loss(problem.model, batch), weights)
        for latent, velocity, gradient in zip(latents, velocities, gradients, strict=True):
            velocity.mul_(momentum).add_(gradient)
            latent.sub_(rate * velocity)
    codes = {layer.name: quantize(latent, layer.grid) for layer, latent in zip(problem.layers, latents, strict=True)}
    differing = sum(int((solution.layers[name].codes != expected).sum()) for name, expected in codes.items())
    assert differing <= 1e-3 * sum(expected.numel() for expected in codes.values())
    nearest = {layer.name: quantize(layer.matrix(), layer.grid) for layer in make_problem(**grid).layers}
    assert any((codes[name] != first).float().mean() > 0.01 for name, first in nearest.items())

"""Who looks on while a model is trained sees every update, and changes none."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.errors import DivergedError
from qbench.methods.fine_tune import FineTuning
from qbench.methods.latent import LatentWeight
from qbench.methods.matrices import to_matrix
from qbench.methods.problem import Problem
from qbench.methods.qat_options import QuantizationAwareTraining
from qbench.quant.block_grid import fake_quantize
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

each_method = pytest.mark.parametrize("name", ["ste_qat", "lsq"])
each_option = pytest.mark.parametrize(
    "options", [{}, {"oscillation": "freeze", "oscillation_threshold": 0.002}, {"bn_training": "update"}], ids=str
)


class Notes:
    """Keeps all that it is shown, at the steps it is asked to want."""

    def __init__(self, *steps: int, seconds: float = 0.0) -> None:
        self.steps, self.seconds = steps, seconds
        self.asked: list[int] = []
        self.deployed: dict[int, dict[str, Tensor]] = {}
        self.latent: dict[int, dict[str, Tensor]] = {}
        self.written: dict[int, dict[str, Tensor]] = {}

    def wants(self, step: int) -> bool:
        self.asked.append(step)
        return not self.steps or step in self.steps

    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        assert step not in self.deployed
        time.sleep(self.seconds)
        self.deployed[step] = {one.layer.name: one.deployed() for one in weights}
        self.latent[step] = {one.layer.name: one.latent.detach().clone() for one in weights}
        self.written[step] = {one.layer.name: one.layer.matrix().clone() for one in weights}


def training(name: str, **options: Any) -> QuantizationAwareTraining:
    found = METHODS.get(name).model_validate({"name": name, "steps": 5, "learning_rate": 0.02, **options})
    assert isinstance(found, QuantizationAwareTraining)
    return found


@each_method
@each_option
def test_what_is_seen_changes_nothing(make_problem: MakeProblem, name: str, options: dict[str, Any]) -> None:
    method = training(name, **options)
    alone = method.solve(make_problem())
    watched = method.solve(dataclasses.replace(make_problem(), watch=Notes()))
    assert watched.traces == alone.traces
    for layer, found in alone.layers.items():
        assert torch.equal(watched.layers[layer].codes, found.codes)
        assert torch.equal(watched.layers[layer].grid.scale, found.grid.scale)


@each_method
def test_it_is_asked_before_the_first_update_and_after_each(make_problem: MakeProblem, name: str) -> None:
    notes = Notes(0, 3)
    training(name).solve(dataclasses.replace(make_problem(), watch=notes))
    assert notes.asked == [0, 1, 2, 3, 4, 5]
    assert list(notes.deployed) == [0, 3]


@each_method
@each_option
def test_it_is_shown_what_is_deployed(make_problem: MakeProblem, name: str, options: dict[str, Any]) -> None:
    notes, problem = Notes(), make_problem()
    first = {layer.name: layer.matrix().clone() for layer in problem.layers}
    solution = training(name, **options).solve(dataclasses.replace(problem, watch=notes))
    for layer in problem.layers:
        assert torch.equal(notes.deployed[0][layer.name], fake_quantize(first[layer.name], layer.grid))
        assert torch.equal(notes.latent[0][layer.name], first[layer.name])
        assert torch.equal(notes.deployed[5][layer.name], solution.layers[layer.name].weight())
        # These methods compute with what they would deploy.
        assert all(torch.equal(notes.deployed[step][layer.name], notes.written[step][layer.name]) for step in range(6))
    assert any((notes.latent[5][name] != first[name]).any() for name in first)


def test_a_grid_that_is_chosen_again_is_that_of_the_moment(make_problem: MakeProblem) -> None:
    notes = Notes()
    solution = training("ste_qat", scale="dynamic").solve(dataclasses.replace(make_problem(), watch=notes))
    for name, found in solution.layers.items():
        assert torch.equal(notes.deployed[5][name], found.weight())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_full_precision_the_latent_weight_is_deployed(make_problem: MakeProblem, dtype: torch.dtype) -> None:
    notes, alone, watched = Notes(), make_problem(), make_problem()
    method = FineTuning(name="fine_tune", steps=5, learning_rate=0.02)
    for problem in (alone, watched):
        problem.model.to(dtype)
    unseen = method.train(alone)
    seen = method.train(dataclasses.replace(watched, watch=notes))
    assert seen.traces == unseen.traces
    for ours, theirs in zip(watched.layers, alone.layers, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        for step, deployed in notes.deployed.items():
            assert torch.equal(deployed[ours.name], to_matrix(ours.module, notes.latent[step][ours.name]))
        assert (notes.deployed[0][ours.name] != notes.deployed[5][ours.name]).any()


def test_the_time_it_takes_is_kept_apart(make_problem: MakeProblem) -> None:
    problem, plain = make_problem(), make_problem()
    seconds = 0.02
    for kind in (training("ste_qat").solve, FineTuning(name="fine_tune", steps=5).train):
        assert kind(plain).watched_seconds == 0
        assert kind(dataclasses.replace(problem, watch=Notes(1, 2, seconds=seconds))).watched_seconds >= 2 * seconds


def test_weights_of_a_diverged_training_are_not_shown(make_problem: MakeProblem) -> None:
    problem, notes = make_problem(), Notes()
    losses = iter([1.0, float("nan")])

    def loss(model: Any, batch: Tensor) -> Tensor:
        return problem.loss(model, batch) * next(losses)

    with pytest.raises(DivergedError, match="at step 2 of 5"):
        training("ste_qat").solve(dataclasses.replace(problem, loss=loss, watch=notes))
    assert list(notes.deployed) == [0, 1]

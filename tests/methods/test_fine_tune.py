"""Fine-tuning in full precision: the same training as through a quantizer that does nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import DivergedError
from qbench.methods.fine_tune import FineTuning
from qbench.methods.latent import QuantizedWeight
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.matrices import from_matrix
from qbench.methods.problem import Problem
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.methods.training import Training
from qbench.methods.training_options import WeightTraining

MakeProblem = Callable[..., Problem]

BUDGET: dict[str, Any] = {
    "steps": 5,
    "batch_size": 3,
    "learning_rate": 0.0125,
    "optimizer": "sgd",
    "momentum": 0.5,
    "schedule": "constant",
    "clip_norm": 0.5,
    "bn": "recalibrate",
    "bn_training": "update",
}
MEMORY: dict[str, Any] = {
    "batch_size": 8,
    "precision": "bfloat16",
    "gradient_checkpointing": True,
    "accumulation": 4,
    "optimizer_state": "8bit",
    "ranks": 2,
}


class Identity(QuantizedWeight):
    """A quantizer whose every weight is a level."""

    def write(self) -> None:
        with torch.no_grad():
            self._weight.copy_(from_matrix(self.layer.module, self._matrix))


@pytest.mark.parametrize("changed", [{}, {"learning_rate": 0.02, "schedule": "constant"}, BUDGET], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_training_through_a_quantizer_that_does_nothing(
    make_problem: MakeProblem, changed: dict[str, Any], dtype: torch.dtype
) -> None:
    quantized, plain = make_problem(), make_problem()
    quantized.model.to(dtype)
    plain.model.to(dtype)
    qat = StraightThroughQAT.model_validate({"name": "ste_qat", "steps": 4, **changed})
    training = Training(quantized, qat, [Identity(layer, qat) for layer in quantized.layers], quantized.loss)
    training.run()
    found = qat.control().train(plain)
    assert found.traces["train_loss"] == training.losses
    assert (
        (found.train_steps, found.train_tokens)
        == (qat.steps, training.tokens)
        == (qat.steps, qat.steps * qat.batch_size * 12)
    )
    for ours, theirs in zip(plain.layers, quantized.layers, strict=True):
        assert torch.equal(ours.weight, theirs.weight)


def test_it_starts_at_the_loss_of_the_full_precision_model(make_problem: MakeProblem) -> None:
    problem = make_problem()
    with torch.no_grad():
        first = problem.loss(problem.model, next(problem.train_batches(8, problem.seed_of("train-batches")))).item()
    assert FineTuning(name="fine_tune", steps=2).train(problem).traces["train_loss"][0] == pytest.approx(
        first, rel=1e-6
    )


def test_the_target_layers_are_trained_and_nothing_else(make_problem: MakeProblem) -> None:
    problem = make_problem()
    problem = dataclasses.replace(
        problem, blocks=[dataclasses.replace(problem.blocks[0], layers=problem.blocks[0].layers[1:])]
    )
    before = copy.deepcopy(problem.model.state_dict())
    FineTuning(name="fine_tune", steps=3, learning_rate=0.01).train(problem)
    after = problem.model.state_dict()
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == {layer.name for layer in problem.layers}
    assert not problem.model.training
    assert all(parameter.grad is None for parameter in problem.model.parameters())


@pytest.mark.parametrize("kind", [StraightThroughQAT, LearnedStepSize])
def test_the_control_has_the_same_budget(kind: Any) -> None:
    given = BUDGET.keys() | MEMORY.keys()
    for options in ({}, BUDGET, MEMORY):
        qat = kind.model_validate({"name": "qat", **options, "distillation": 0.5, "oscillation": "track"})
        control = qat.control()
        assert {name: getattr(control, name) for name in given} == {name: getattr(qat, name) for name in given}
    assert given == set(WeightTraining.model_fields) - {"name"} == set(FineTuning.model_fields) - {"name"}


def test_its_label_names_what_was_changed() -> None:
    assert StraightThroughQAT(name="ste_qat", gradient="masked").control().label() == "fine_tune"
    assert StraightThroughQAT(name="ste_qat", steps=20).control().label() == "fine_tune[steps=20]"


def test_a_loss_that_is_not_finite_is_told(make_problem: MakeProblem) -> None:
    problem = make_problem()

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return problem.loss(model, batch) * float("nan")

    with pytest.raises(DivergedError, match=r"^the training loss became nan at step 1 of 3$"):
        FineTuning(name="fine_tune", steps=3).train(dataclasses.replace(problem, loss=loss))

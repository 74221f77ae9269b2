"""Distillation: the divergence and its gradient against autograd on the plain formula."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import CellError
from qbench.methods.distillation import distilled_loss, divergence
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.problem import Problem
from qbench.methods.ste_qat import StraightThroughQAT

MakeProblem = Callable[..., Problem]


def predict(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    return model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()


def by_formula(teacher: Tensor, student: Tensor) -> Tensor:
    p, q = teacher.softmax(1), student.softmax(1)
    return (p * (p / q).log()).sum(1).mean()


@pytest.fixture
def problem(make_problem: MakeProblem) -> Problem:
    return dataclasses.replace(make_problem(bits=3), predict=predict)


def test_the_divergence_is_a_mean_over_positions_in_nats() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(7, 11, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    assert float(divergence(teacher, student)) == pytest.approx(float(by_formula(teacher, student)), rel=1e-5)
    two = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, torch.tensor(3.0).log()]])
    assert float(divergence(*two)) == pytest.approx(float(0.5 * torch.tensor(4 / 3).log()), rel=1e-5)
    doubled = torch.cat([teacher, teacher]), torch.cat([student, student])
    assert float(divergence(*doubled)) == pytest.approx(float(divergence(teacher, student)))


def test_a_model_does_not_diverge_from_itself(problem: Problem) -> None:
    batch = next(problem.train_batches(4, 0))
    assert distilled_loss(problem, 1.0)(problem.model, batch).item() == 0.0


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_loss_and_gradient_are_those_of_the_formula(problem: Problem, share: float) -> None:
    batch = next(problem.train_batches(4, 0))
    teacher = copy.deepcopy(problem.model)
    loss = distilled_loss(problem, share)
    weights = [layer.module.weight for layer in problem.layers]
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    logits, targets = predict(problem.model, batch)
    expected = share * by_formula(predict(teacher, batch)[0].detach(), logits)
    expected = expected + (1 - share) * functional.cross_entropy(logits, targets)
    found = loss(problem.model, batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    pairs = zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [StraightThroughQAT, LearnedStepSize])
def test_training_brings_the_quantized_model_to_its_teacher(problem: Problem, kind: Any) -> None:
    batches = [next(problem.train_batches(8, 0))] * 40
    still = dataclasses.replace(problem, train_batches=lambda *_: iter(batches))
    solution = kind.model_validate({"name": "qat", "steps": 40, "learning_rate": 0.01, "distillation": 1}).solve(still)
    solution.check(problem)
    losses = solution.traces["train_loss"]
    assert losses[0] > 0.01 and losses[-1] < 0.7 * losses[0]


def test_without_distillation_the_loss_is_the_task_s_own(problem: Problem) -> None:
    assert distilled_loss(problem, 0.0) is problem.loss


def test_a_task_without_predictions_is_told(make_problem: MakeProblem) -> None:
    with pytest.raises(CellError) as caught:
        StraightThroughQAT(name="ste_qat", distillation=0.5).solve(make_problem())
    assert str(caught.value) == (
        "distillation is 0.5, but the task has no predict(model, batch) that returns logits and targets "
        "(allowed here: distillation: 0)"
    )

"""Losses of some windows or images, one by one."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from qbench.geometry.sampled_loss import HIGHEST, Sample, excess, sample_of, sampled_losses
from qbench.registry import MODELS

from .scenes import bowl, language, network


def test_a_sample_is_whole_windows_spread_over_the_split() -> None:
    task = language(evaluation_windows=6).task
    window = task.evaluation_batches(1)[0].shape[1]
    whole = torch.cat(task.evaluation_batches())
    for budget, count in ((1, 1), (window, 1), (window + 1, 2), (3 * window, 3), (10**9, 6)):
        sample = sample_of(task, budget)
        rows = torch.cat(list(sample.batches))
        assert len(rows) == count
        assert sample.tokens == count * window
        assert all(any(torch.equal(row, one) for one in whole) for row in rows)
    assert not torch.equal(torch.cat(list(sample_of(task, 2 * window).batches)), whole[:2])


def test_the_losses_of_all_windows_are_the_loss() -> None:
    task = language(evaluation_windows=6).task
    losses = sampled_losses(task, task.model, sample_of(task, 10**9))
    assert losses.shape == (6,) and losses.dtype == torch.float64
    batches = task.evaluation_batches()
    with torch.no_grad():
        each = [float(task.loss(task.model, row[None])) for batch in batches for row in batch]
    assert losses.tolist() == pytest.approx(each, rel=1e-5)


def test_the_losses_of_images_are_one_by_one() -> None:
    task = network()
    losses = sampled_losses(task, task.model, sample_of(task, 20))
    images, labels = task.data
    wanted = functional.cross_entropy(task.model(images[: len(losses)]), labels[: len(losses)], reduction="none")
    assert losses.tolist() == pytest.approx(wanted.tolist(), rel=1e-6)


def test_a_task_without_logits_has_a_loss_a_batch() -> None:
    task, _, _ = bowl()
    losses = sampled_losses(task, task.model, sample_of(task, 100))
    assert losses.tolist() == [pytest.approx(task.evaluate(task.model, ("loss",)).documents[0][2])]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e30])
def test_what_is_no_number_or_too_large_is_the_highest_loss(broken: float) -> None:
    task = network()
    with torch.no_grad():
        task.model[2].weight.mul_(broken)  # type: ignore[index, operator]
    losses = sampled_losses(task, task.model, sample_of(task, 33))
    assert torch.isfinite(losses).all()
    assert (losses <= HIGHEST).all()
    assert float(losses.max()) == HIGHEST


def test_the_excess_has_the_error_of_a_mean_over_pairs() -> None:
    full = torch.tensor([1.0, 5.0, 2.0, 4.0], dtype=torch.float64)
    mean, error = excess(full + torch.tensor([1.0, 1.0, 3.0, 3.0]), full)
    assert mean == 2
    assert error == pytest.approx(math.sqrt(4 / 3) / 2)
    assert excess(full[:1] + 0.5, full[:1]) == (0.5, 0.0)


def test_an_embedded_classifier_is_measured_on_as_many_images_as_asked_for() -> None:
    task = MODELS.get("mlp-digits").model_validate({"name": "mlp-digits"}).load(0, "cpu")
    sample = sample_of(task, 50)
    assert isinstance(sample, Sample) and sample.tokens == 50
    assert len(sampled_losses(task, task.model, sample)) == 50

"""Losses on a fixed number of tokens or images, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HIGHEST = 1000.0
"""Nats from which a loss is no larger: a model that gives infinities or no number is as far out as can be told."""


@dataclass(frozen=True)
class Sample:
    """Some of the evaluation split.

    Attributes
    ----------
    batches : sequence
        For `Task.loss`.
    tokens : int
        Tokens (or images) in them.
    """

    batches: Sequence[Any]
    tokens: int


def sample_of(task: Any, budget: int) -> Sample:
    """Return windows or images, spread evenly over the evaluation split, of about so many tokens or images.

    Parameters
    ----------
    task : Task
        Loaded.
    budget : int
        Tokens or images; there is one window at least, and never more than the split has.
    """
    one = task.tokens_of(task.evaluation_batches(1)[0])
    batches = task.evaluation_batches(max(1, math.ceil(budget / one)))
    return Sample(batches, sum(task.tokens_of(batch) for batch in batches))


@torch.no_grad()
def sampled_losses(task: Any, model: nn.Module, sample: Sample) -> Tensor:
    """Return the mean loss of each window or image of a sample, of shape (windows,), float64, nats.

    A task that has no ``predict`` gives one loss a batch.
    """
    predict: Callable[..., Any] | None = getattr(task, "predict", None)
    found = []
    for batch in sample.batches:
        if predict is None:
            found.append(task.loss(model, batch).reshape(1))
            continue
        logits, targets = predict(model, batch)
        each = functional.cross_entropy(logits, targets, reduction="none")
        found.append(each.view(_rows(batch), -1).mean(dim=1))
    losses = torch.cat(found).double().cpu()
    return losses.nan_to_num(nan=HIGHEST, posinf=HIGHEST).clamp_max(HIGHEST)


def excess(losses: Tensor, full: Tensor) -> tuple[float, float]:
    """Return how far losses lie above others of the same windows in the mean, and the standard error of that.

    Parameters
    ----------
    losses, full : Tensor of shape (windows,)
        Nats.

    Returns
    -------
    tuple of float
        Nats. The error is 0 where there is a single window: then nothing is known of it.
    """
    difference = losses - full
    if len(difference) < 2:
        return float(difference.mean()), 0.0
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))


def _rows(batch: Any) -> int:
    return len(batch) if isinstance(batch, Tensor) else len(batch[0])

"""What an evaluation returns, whatever the task; and how the reading of evaluation data is announced."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

EVALUATION_READ = "qbench.evaluation"
"""The audit event (see `sys.audit`) of data of an evaluation split being read; its argument says which data."""


def announce(split: str, place: str) -> None:
    """Raise the audit event that evaluation data is about to be read, where the split is ``evaluation``.

    Parameters
    ----------
    split : str
        What is read.
    place : str
        Of what, for a message.
    """
    if split == "evaluation":
        sys.audit(EVALUATION_READ, f"the evaluation split of {place}")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured.

    Attributes
    ----------
    metrics : dict of str to float
        Names carry the convention: ``loss/blocks128`` is in nats a token over windows of 128 tokens, each predicted
        from what stands before it in its window; ``loss/cross_entropy`` is in nats an image, ``accuracy/top1`` a share.
    documents : list of (str, int, float)
        Document (or group of images), predicted tokens (or images), and the sum of their losses in nats.
    facts : dict
        What a record should say of data that the key of its cell does not know.
    """

    metrics: dict[str, float]
    documents: list[tuple[str, int, float]]
    facts: dict[str, Any] = field(default_factory=dict)

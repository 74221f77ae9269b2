"""What an evaluation returns, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    metrics: dict[str, float]
    documents: list[tuple[str, int, float]]

"""Whether the losses of single documents give the loss of a record: one that was edited says two things."""

from __future__ import annotations

import math

from qbench.store.record import Record

_ROUNDING = 1e-6  # relative; a task may take its mean in single precision


def loss_of_documents(record: Record) -> float | None:
    """Return the mean loss over all documents, weighted by their tokens (or images), in nats; None without any."""
    tokens = sum(row.tokens for row in record.documents)
    return sum(row.loss_sum for row in record.documents) / tokens if tokens else None


def adds_up(record: Record) -> bool:
    """Return whether a record's loss is that of its documents but for rounding, where it tells both."""
    mean = loss_of_documents(record)
    if record.loss is None or mean is None:
        return True
    return math.isclose(mean, record.loss, rel_tol=_ROUNDING, abs_tol=1e-9)

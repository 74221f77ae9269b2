"""What a run, a plan and an estimate need of a record: little enough that those of a whole suite fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from sys import intern

from qbench.store.record import Record, Status
from qbench.suite.cell import cell_label


@dataclass(frozen=True, slots=True)
class Summary:
    """A record without what it measured.

    Attributes
    ----------
    cell_id, axes, status, reason, weights_sha256, ended
        As the `Record` has them.
    fallbacks : tuple of str
        Why layers fell back, each reason once.
    is_probe : bool
        Whether a probe measured it, and no method was run.
    seconds : float
        How long it took; see `seconds_of`.
    peak_memory_bytes : int
        See `Cost`.
    """

    cell_id: str
    axes: dict[str, str | int | None]
    status: Status
    reason: str | None
    fallbacks: tuple[str, ...]
    weights_sha256: str | None
    is_probe: bool
    seconds: float
    peak_memory_bytes: int
    ended: str

    @classmethod
    def of(cls, record: Record) -> Summary:
        """Return what is to be held of a record."""
        return cls(
            cell_id=record.cell_id,
            axes=share_names(record.axes),
            status=record.status,
            reason=record.reason,
            fallbacks=tuple(dict.fromkeys(record.fallbacks)),
            weights_sha256=record.weights_sha256,
            is_probe=record.is_probe,
            seconds=seconds_of(record),
            peak_memory_bytes=record.cost.peak_memory_bytes,
            ended=record.ended,
        )

    @property
    def clean(self) -> bool:
        """Whether the cell ended well and no layer fell back."""
        return self.status == "ok" and not self.fallbacks

    @property
    def label(self) -> str:
        """Return the place in the leaderboard in one line, such as ``llama-1m/mse/2b/gptq/s0``."""
        return cell_label(self.axes)


def share_names(axes: dict[str, str | int | None]) -> dict[str, str | int | None]:
    """Return the same axes with names that are held once: a suite has few, and many cells."""
    return {intern(axis): intern(value) if isinstance(value, str) else value for axis, value in axes.items()}


def seconds_of(record: Record) -> float:
    """Return how long a cell took: from its start to its end, or where it does not tell those what it measured."""
    cost = record.cost.method_seconds + record.cost.evaluation_seconds
    try:
        between = datetime.fromisoformat(record.ended) - datetime.fromisoformat(record.started)
    except (ValueError, TypeError):  # not told, or told by hand
        return cost
    return max(cost, between.total_seconds())

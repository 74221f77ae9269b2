"""What changed between a baseline and a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qbench.store.baseline import Baseline, BaselineCell
from qbench.store.environment import shared_environment
from qbench.store.floats import spell
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.store.spread import row_of

Verdict = Literal["same", "better", "worse", "new", "missing", "failed"]

FLOOR = 0.02
"""The least tolerance, nats a token."""

_WORST_FIRST: tuple[Verdict, ...] = ("failed", "missing", "worse", "better", "new", "same")


@dataclass(frozen=True)
class ComparisonRow:
    """One cell, then and now.

    Attributes
    ----------
    label : str
        The place in the leaderboard.
    old, new, delta : float or None
        Loss in the baseline, loss now, and ``new - old``; nats a token.
    tolerance : float
        ``max(0.02, 3 sd)`` with the baseline's sd of the excess loss over the seeds of the row; nats a token.
    verdict : str
        ``same``, ``better``, ``worse``, ``new``, ``missing`` or ``failed``.
    identical : bool
        The quantized weights are the same to the bit.
    note : str
        What a number does not say.
    """

    label: str
    old: float | None
    new: float | None
    delta: float | None
    tolerance: float
    verdict: Verdict
    identical: bool = False
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A run against a baseline.

    Attributes
    ----------
    suite : str
        The baseline's suite.
    rows : tuple of ComparisonRow
        Worst first.
    environment : dict of str to tuple of str
        What the two grounds do not share: name to (then, now); a dash stands for a value that is not there.
    left_out : int
        Cells of the baseline that were not expected to run.
    """

    suite: str
    rows: tuple[ComparisonRow, ...]
    environment: dict[str, tuple[str, str]]
    left_out: int = 0

    @property
    def regressed(self) -> bool:
        """Whether any cell is worse, missing or failed."""
        return any(row.verdict in ("worse", "missing", "failed") for row in self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many rows each verdict has, worst first, without zeros."""
        counts = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in _WORST_FIRST}
        return {verdict: count for verdict, count in counts.items() if count}

    def to_json(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        data: dict[str, Any] = spell(asdict(self))
        return {**data, "regressed": self.regressed, "counts": self.counts}


def compare(
    records: Iterable[Record], baseline: Baseline, expected_labels: Collection[str] | None = None
) -> Comparison:
    """Compare a run with a baseline, cell by cell, matched by label.

    Parameters
    ----------
    records : iterable of Record
        What the run left; of several records of one label the newest counts.
    baseline : Baseline
        The blessed results.
    expected_labels : collection of str, optional
        The cells that the run had to make; all others are left out and counted. By default every cell of the baseline
        and of the run.
    """
    chosen = newest(records)
    labels = set(baseline.cells) | set(chosen) if expected_labels is None else set(expected_labels)
    sd = {spread.row: spread.sd for spread in baseline.spread}
    rows = []
    for label in sorted(labels):
        old, new = baseline.cells.get(label), chosen.get(label)
        axes = old.axes if old is not None else new.axes if new is not None else None
        noise = None if axes is None else sd.get(row_of(axes))
        rows.append(_judge(label, old, new, max(FLOOR, 3 * (noise or 0.0))))
    now = shared_environment(record for label, record in chosen.items() if label in labels)
    then = baseline.environment
    return Comparison(
        suite=baseline.suite,
        rows=tuple(sorted(rows, key=_rank)),
        environment={
            name: (then.get(name, "-"), now.get(name, "-"))
            for name in sorted({*then, *now})
            if now and then.get(name) != now.get(name)
        },
        left_out=len(set(baseline.cells) - labels),
    )


def _judge(label: str, old: BaselineCell | None, new: Record | None, tolerance: float) -> ComparisonRow:
    before, after = None if old is None else old.loss, None if new is None else new.loss
    delta = None if before is None or after is None or not math.isfinite(after - before) else after - before
    identical = bool(old and new and new.weights_sha256 and old.weights_sha256 == new.weights_sha256)

    def row(verdict: Verdict, note: str = "") -> ComparisonRow:
        return ComparisonRow(label, before, after, delta, tolerance, verdict, identical, note)

    if new is None or new.status == "skipped":
        if new is not None and (old is None or old.status == "skipped"):
            return row("same" if old else "new", f"skipped: {new.reason}")
        return row("missing", "no record" if new is None else f"skipped: {new.reason}")
    flaw = new.reason or "no reason given" if new.status != "ok" else None
    if flaw is None and after is not None and not math.isfinite(after):
        flaw = f"loss is {after}"
    if flaw is not None:
        known = old is not None and old.flaw is not None and not old.fallback
        return row("same" if known else "failed", f"{flaw} (accepted in the baseline)" if known else flaw)
    if old is None:
        return row("new", "a layer fell back" if new.fallbacks else "")
    if old.status != "ok" or (before is not None and not math.isfinite(before)):
        return row("better", f"was {old.flaw}")
    if new.loss_key != old.loss_key:
        return row("missing", f"measured as {new.loss_key or 'nothing'}, the baseline as {old.loss_key or 'nothing'}")
    if new.fallbacks and not old.fallback:
        return row("worse", f"layers that fell back: {len(new.fallbacks)}, in the baseline none")
    if delta is None or abs(delta) <= tolerance:
        return row("same")
    return row("worse" if delta > 0 else "better")


def _rank(row: ComparisonRow) -> tuple[int, float, str]:
    return (_WORST_FIRST.index(row.verdict), -(row.delta or 0.0) / row.tolerance, row.label)

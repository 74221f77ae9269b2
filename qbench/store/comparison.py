"""What changed between a baseline and a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from qbench.store.baseline import Baseline, BaselineCell
from qbench.store.environment import shared_environment
from qbench.store.floats import spell
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.store.spread import accuracy_sd, row_of

Verdict = Literal["same", "better", "worse", "new", "missing", "failed"]

FLOOR = 0.02
"""The least tolerance of a loss, nats a token (or an image)."""

ACCURACY_FLOOR = 0.005
"""The least tolerance of an accuracy: half a point, five images of a thousand."""

_WORST_FIRST: tuple[Verdict, ...] = ("failed", "missing", "worse", "better", "new", "same")


@dataclass(frozen=True)
class ComparisonRow:
    """One cell, then and now.

    Attributes
    ----------
    label : str
        The place in the leaderboard.
    old, new, delta : float or None
        Loss in the baseline, loss now, and ``new - old``; nats a token (or an image).
    tolerance : float
        ``max(0.02, 3 sd)`` with the baseline's sd of the excess loss over the seeds of the row; nats a token (or an
        image).
    verdict : str
        ``same``, ``better``, ``worse``, ``new``, ``missing`` or ``failed``.
    identical : bool
        The quantized weights are the same to the bit.
    note : str
        What a number does not say.
    old_accuracy, new_accuracy : float or None
        Of image classifiers, shares.
    accuracy_tolerance : float
        ``max(0.005, 3 sd)`` with the baseline's sd of the accuracy less full precision's; a share. What is beyond
        either tolerance is better or worse; what is better by one and worse by the other is worse.
    """

    label: str
    old: float | None
    new: float | None
    delta: float | None
    tolerance: float
    verdict: Verdict
    identical: bool = False
    note: str = ""
    old_accuracy: float | None = None
    new_accuracy: float | None = None
    accuracy_tolerance: float = ACCURACY_FLOOR

    @property
    def changes(self) -> tuple[float, ...]:
        """Return what is worse than in the baseline, in tolerances, measure by measure; negative is better."""
        found = [] if self.delta is None else [self.delta / self.tolerance]
        if self.old_accuracy is not None and self.new_accuracy is not None:
            found.append((self.old_accuracy - self.new_accuracy) / self.accuracy_tolerance)
        return tuple(found)


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
    chosen = newest(record for record in records if not record.is_probe)
    labels = set(baseline.cells) | set(chosen) if expected_labels is None else set(expected_labels)
    sd = {spread.row: spread.sd or 0.0 for spread in baseline.spread}
    measured = [(cell.axes, cell.accuracy) for cell in baseline.cells.values() if cell.status == "ok"]
    of_accuracy = accuracy_sd((axes, accuracy) for axes, accuracy in measured if accuracy is not None)
    rows = []
    for label in sorted(labels):
        old, new = baseline.cells.get(label), chosen.get(label)
        axes = old.axes if old is not None else new.axes if new is not None else None
        place = () if axes is None else row_of(axes)
        tolerances = max(FLOOR, 3 * sd.get(place, 0.0)), max(ACCURACY_FLOOR, 3 * of_accuracy.get(place, 0.0))
        rows.append(_judge(label, old, new, tolerances))
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


def _judge(label: str, old: BaselineCell | None, new: Record | None, tolerances: tuple[float, float]) -> ComparisonRow:
    before, after = None if old is None else old.loss, None if new is None else new.loss
    delta = None if before is None or after is None or not math.isfinite(after - before) else after - before
    scores = None if old is None else old.accuracy, None if new is None else new.accuracy
    identical = bool(old and new and new.weights_sha256 and old.weights_sha256 == new.weights_sha256)

    def row(verdict: Verdict, note: str = "") -> ComparisonRow:
        loss = (before, after, delta, tolerances[0])
        return ComparisonRow(label, *loss, verdict, identical, note, *scores, tolerances[1])

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
    if scores[0] is not None and scores[1] is None:
        return row("missing", "no accuracy was measured, the baseline has one")
    if new.fallbacks and not old.fallback:
        return row("worse", f"layers that fell back: {len(new.fallbacks)}, in the baseline none")
    return _by_size(row("same"))


def _by_size(row: ComparisonRow) -> ComparisonRow:
    """Return a row of which nothing else is to be said with the verdict that its numbers give."""
    worst, best = max(row.changes, default=0.0), min(row.changes, default=0.0)
    verdict: Verdict = "worse" if worst > 1 else "better" if best < -1 else "same"
    note = ""
    if row.old_accuracy is not None and row.new_accuracy is not None:
        old, new, tolerance = (100 * share for share in (row.old_accuracy, row.new_accuracy, row.accuracy_tolerance))
        note = f"accuracy {old:.1f} % -> {new:.1f} %, tolerance {tolerance:.1f}" if abs(new - old) > tolerance else ""
    return replace(row, verdict=verdict, note=note)


def _rank(row: ComparisonRow) -> tuple[int, float, str]:
    return (_WORST_FIRST.index(row.verdict), -max(row.changes, default=0.0), row.label)

"""What is said of one cell, then and now."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from qbench.store.paired import Interval
from qbench.store.results import CellResult, Expected
from qbench.store.tolerance import ACCURACY_FLOOR, SQNR_FLOOR

Verdict = Literal["same", "better", "worse", "new", "missing", "failed", "blocked", "moved", "expected", "fixed"]

WORST_FIRST: tuple[Verdict, ...] = (
    "failed", "missing", "worse", "blocked", "moved", "better", "fixed", "expected", "new", "same"
)  # fmt: skip

REGRESSED = frozenset({"failed", "missing", "worse", "blocked"})
"""Verdicts of a change for the worse, or of what cannot be told."""

RED = REGRESSED | {"moved", "better", "fixed"}
"""Verdicts that do not pass: a change or an improvement that nobody explained, too."""


@dataclass(frozen=True)
class ComparisonRow:
    """One cell, then and now.

    Attributes
    ----------
    label : str
        The place in the leaderboard.
    old, new : float or None
        Loss in the baseline and loss now; nats a token (or an image).
    delta : float or None
        What is judged: by how much the loss above full precision has grown, each measured against the full-precision
        cell of its own run; of full precision the loss itself. Nats a token (or an image).
    tolerance : float
        How much of it is noise at most, see `Tolerance`; nats a token (or an image).
    verdict : str
        ``same``, ``better``, ``worse``, ``new``, ``missing``, ``failed``, ``blocked`` (full precision moved or is not
        there, so that nothing can be told), ``moved`` (by more than noise, but on some documents up and on others
        down; or only the error of the weights did, or the bits they take), ``expected`` (a known failure) or ``fixed``
        (a known failure no more).
    identical : bool
        The quantized weights are the same to the bit.
    note : str
        What a number does not say.
    old_accuracy, new_accuracy : float or None
        Of image classifiers, shares.
    accuracy_tolerance : float
        A share. What is beyond either tolerance is better or worse; what is better by one and worse by the other is
        worse.
    old_sqnr, new_sqnr, sqnr_tolerance : float or None
        Signal-to-noise ratio of the quantized weights, decibels: how large their error is.
    old_bits, new_bits : float or None
        Effective bits a weight.
    interval : Interval or None
        99 % interval of `delta` over documents; None where the documents of both runs are not known or not the same.
    old_recovery, new_recovery, old_accuracy_recovery, new_accuracy_recovery : float or None
        By loss and by accuracy, see `recovery`; each against full precision of its own run.
    other_weights : bool
        The weights differ although the ground is the same.
    group : str
        Model and seed: the cells that share a full-precision cell.
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
    interval: Interval | None = None
    old_recovery: float | None = None
    new_recovery: float | None = None
    old_accuracy_recovery: float | None = None
    new_accuracy_recovery: float | None = None
    other_weights: bool = False
    group: str = ""
    old_sqnr: float | None = None
    new_sqnr: float | None = None
    sqnr_tolerance: float = SQNR_FLOOR
    old_bits: float | None = None
    new_bits: float | None = None

    @property
    def changes(self) -> tuple[float, ...]:
        """Return what is worse than in the baseline, in tolerances, measure by measure; negative is better."""
        found = [] if self.delta is None else [self.delta / self.tolerance]
        if self.old_accuracy is not None and self.new_accuracy is not None:
            found.append((self.old_accuracy - self.new_accuracy) / self.accuracy_tolerance)
        return tuple(found)

    @property
    def rank(self) -> tuple[int, float, str]:
        """Return what rows are sorted by, the worst first."""
        return (WORST_FIRST.index(self.verdict), -max(self.changes, default=0.0), self.label)

    def said(self, verdict: Verdict | None = None, *notes: str) -> ComparisonRow:
        """Return the row with another verdict and with more notes."""
        return replace(self, verdict=verdict or self.verdict, note="; ".join(filter(None, (self.note, *notes))))


def by_size(row: ComparisonRow, *, documents: bool = True) -> ComparisonRow:
    """Return a row of which nothing else is to be said with the verdict that its numbers give.

    Parameters
    ----------
    row : ComparisonRow
        All numbers in place.
    documents : bool
        Whether the interval has to agree. It has not for full precision: a model that moved is another model, on
        however few documents.
    """
    signs, notes, moved = [], [], False
    if row.delta is not None and abs(row.delta) > row.tolerance:
        sign = 1 if row.delta > 0 else -1
        if not documents:
            signs.append(sign)
        elif row.interval is None:
            signs.append(sign)
            notes.append("unpaired")
        elif row.interval.low > 0 or row.interval.high < 0:
            signs.append(sign)
        else:
            moved = True
            notes.append("not on all documents alike")
    if row.old_accuracy is not None and row.new_accuracy is not None:
        old, new, tolerance = (100 * share for share in (row.old_accuracy, row.new_accuracy, row.accuracy_tolerance))
        if abs(new - old) > tolerance:
            signs.append(1 if new < old else -1)
            notes.append(f"accuracy {old:.1f} % -> {new:.1f} %, tolerance {tolerance:.1f}")
    of_weights = _weights_moved(row)
    notes += of_weights
    moved = moved or bool(of_weights)
    return row.said("worse" if 1 in signs else "better" if signs else "moved" if moved else "same", *notes)


def _weights_moved(row: ComparisonRow) -> list[str]:
    """Return what can be told from the weights alone: a rule that became worse shows there before it does in a loss."""
    found = []
    old, new = row.old_sqnr, row.new_sqnr
    if old is not None and new is not None and old != new and not abs(new - old) <= row.sqnr_tolerance:
        found.append(f"SQNR of the weights {old:.2f} dB -> {new:.2f} dB, tolerance {row.sqnr_tolerance:.2g}")
    if row.old_bits is not None and row.new_bits is not None and not math.isclose(row.old_bits, row.new_bits):
        found.append(f"effective bits {row.old_bits:.4g} -> {row.new_bits:.4g}")
    return found


def of_expected(
    row: ComparisonRow, old: CellResult | None, new: CellResult | None, expected: Expected
) -> ComparisonRow | None:
    """Return what is said of a cell that is known to fail; None where it has to be judged like any other.

    Parameters
    ----------
    row : ComparisonRow
        All numbers in place.
    old, new : CellResult or None
        In the baseline (None: it was missing), and now.
    expected : Expected
        Why and since when it is accepted.
    """
    since = f" since {expected.date}" if expected.date else ""
    told = f"expected{since}: {expected.reason}"
    broken = "no record" if new is None else new.breakdown
    if old is None or old.breakdown:
        if broken:
            return row.said("expected", broken, told)
        return row.said("fixed", *(["a layer fell back"] if new and new.fallback else []), told)
    if broken:
        return None
    if new is not None and not new.fallback:
        return row.said("fixed", told)
    return None


def of_presence(row: ComparisonRow, old: CellResult | None, new: CellResult | None) -> ComparisonRow | None:
    """Return what is said of a cell that cannot be compared by numbers; None where it can.

    Parameters
    ----------
    row : ComparisonRow
        All numbers in place.
    old, new : CellResult or None
        In the baseline, and now.
    """
    if new is None:
        return row.said("missing", "no record")
    if new.status == "skipped":
        return row.said("missing" if old else "new", f"skipped: {new.reason}")
    if new.breakdown:
        return row.said("failed", new.breakdown.removeprefix("failed: "))
    if old is None:
        return row.said("new", *(["a layer fell back"] if new.fallback else []))
    if old.breakdown:
        return row.said("fixed", f"was {old.breakdown}")
    if new.loss_key != old.loss_key:
        was = old.loss_key or "nothing"
        return row.said("missing", f"measured as {new.loss_key or 'nothing'}, the baseline as {was}")
    if old.accuracy is not None and new.accuracy is None:
        return row.said("missing", "no accuracy was measured, the baseline has one")
    if new.fallback and not old.fallback:
        return row.said("worse", "a layer fell back, in the baseline none")
    return None

"""What changed between a baseline and a run.

Full precision comes first: where it moved, the cells of its model and seed are not judged, since nothing is known of
what they are measured against. Every other cell is judged by its loss above the full-precision cell of the same run,
so that what moves both is no change; a change counts where it is beyond the noise of arithmetic (`Tolerances`) and
where the documents bear it out (`paired_interval`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from qbench.store.floats import spell
from qbench.store.gathering import gather
from qbench.store.noise import Row, row_of
from qbench.store.paired import Stratum, paired_interval
from qbench.store.record import Record
from qbench.store.recovery import recovery
from qbench.store.results import (
    Blessing,
    CellResult,
    Results,
    evaluation_name,
    full_precision_label,
    same_ground,
)
from qbench.store.tolerance import FLOOR, WIDE, Tolerances
from qbench.store.verdict import RED, REGRESSED, WORST_FIRST, ComparisonRow, by_size, of_expected, of_presence
from qbench.suite.cell import cell_label


@dataclass(frozen=True)
class Comparison:
    """A run against a baseline.

    Attributes
    ----------
    suite, device : str
        The suite, and the class of device whose baseline is compared with.
    rows : tuple of ComparisonRow
        Worst first.
    environment : dict of str to tuple of str
        What the two grounds do not share: name to (then, now); a dash stands for a value that is not there.
    left_out : int
        Cells of the baseline that were not expected to run.
    seed_means : tuple of ComparisonRow
        Means over the seeds of a row that changed while no cell of it did; worst first.
    exact : bool
        Whether other weights on the same ground are red.
    blessed : Blessing or None
        When and why the baseline was made what it is.
    """

    suite: str
    rows: tuple[ComparisonRow, ...]
    environment: dict[str, tuple[str, str]]
    left_out: int = 0
    seed_means: tuple[ComparisonRow, ...] = ()
    exact: bool = False
    device: str = ""
    blessed: Blessing | None = None

    @property
    def nothing(self) -> bool:
        """Whether not one cell was there to be compared."""
        return bool(self.rows) and all(row.verdict == "new" for row in self.rows)

    @property
    def wide(self) -> tuple[ComparisonRow, ...]:
        """Return the rows whose tolerance is so wide that nearly everything passes, the widest first."""
        found = [row for row in self.rows if row.delta is not None and not row.tolerance <= WIDE]
        return tuple(sorted(found, key=lambda row: (-row.tolerance, row.label)))

    @property
    def regressed(self) -> bool:
        """Whether anything is worse, missing or failed, or could not be judged."""
        return any(row.verdict in REGRESSED for row in (*self.rows, *self.seed_means))

    @property
    def passed(self) -> bool:
        """Whether nothing is red, and anything was compared at all."""
        return not self.nothing and not any(map(self.red, (*self.rows, *self.seed_means)))

    @property
    def counts(self) -> dict[str, int]:
        """Return how many rows each verdict has, worst first, without zeros."""
        counts = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in WORST_FIRST}
        return {verdict: count for verdict, count in counts.items() if count}

    def red(self, row: ComparisonRow) -> bool:
        """Return whether a row does not pass."""
        return row.verdict in RED or (self.exact and row.other_weights)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        data: dict[str, Any] = spell(asdict(self))
        for name, rows in (("rows", self.rows), ("seed_means", self.seed_means)):
            data[name] = [{**plain, "red": self.red(row)} for plain, row in zip(data[name], rows, strict=True)]
        data["blessed"] = None if self.blessed is None else self.blessed.model_dump()
        return {**data, "regressed": self.regressed, "passed": self.passed, "counts": self.counts}


def compare(
    records: Iterable[Record],
    baseline: Results,
    expected_labels: Collection[str] | None = None,
    *,
    suite: str = "",
    device: str = "",
    exact: bool = False,
    suite_labels: Collection[str] | None = None,
) -> Comparison:
    """Compare a run with a baseline, cell by cell, matched by label.

    Parameters
    ----------
    records : iterable of Record
        What the run left; of several records of one label the newest counts.
    baseline : Results
        The blessed results of one class of device.
    expected_labels : collection of str, optional
        The cells that the run had to make; all others are left out and counted. By default every cell of the baseline
        and of the run.
    suite, device : str
        What to call them.
    exact : bool
        Whether other weights on the same ground are red.
    suite_labels : collection of str, optional
        Where all of a suite was asked for, every cell that it has: one that only the baseline has is missing.
    """
    return compare_results(
        baseline,
        gather(records),
        expected_labels,
        suite=suite,
        device=device,
        exact=exact,
        suite_labels=suite_labels,
    )


def compare_results(
    old: Results,
    new: Results,
    expected_labels: Collection[str] | None = None,
    *,
    suite: str = "",
    device: str = "",
    exact: bool = False,
    suite_labels: Collection[str] | None = None,
) -> Comparison:
    """Compare results with older ones; see `compare`.

    Parameters
    ----------
    old, new : Results
        Then and now; tolerances are those of `old`.
    expected_labels, suite, device, exact, suite_labels
        As in `compare`.
    """
    held = {*old.cells, *old.expected}
    labels = held | set(new.cells) if expected_labels is None else set(expected_labels)
    judge = _Judge(old, new)
    gone = set() if suite_labels is None else held - set(suite_labels)
    rows = [judge.row(label) for label in sorted(labels - gone)]
    # What the suite has dropped is no less missing than what it has not run.
    dropped = "the suite has no such cell any more"
    rows += [replace(judge.row(label), verdict="missing", note=dropped) for label in sorted(gone)]
    then, now = old.environment, new.environment
    return Comparison(
        suite=suite,
        rows=tuple(sorted(rows, key=lambda row: row.rank)),
        environment={
            name: (then.get(name, "-"), now.get(name, "-"))
            for name in sorted({*then, *now})
            if now and then.get(name) != now.get(name)
        },
        left_out=len(held - labels - gone),
        seed_means=tuple(sorted(judge.seed_means(rows), key=lambda row: row.rank)),
        exact=exact,
        device=device,
        blessed=old.history[-1] if old.history else None,
    )


class _Judge:
    """Both results, and what follows from them for single cells."""

    def __init__(self, old: Results, new: Results) -> None:
        self.old, self.new = old, new
        self._closed: dict[str, str | None] = {}

    @cached_property
    def tolerances(self) -> Tolerances:
        return Tolerances(self.old)

    def row(self, label: str) -> ComparisonRow:
        old, new = self.old.cells.get(label), self.new.cells.get(label)
        row = self._numbers(label, old, new)
        known = self.old.expected.get(label)
        if known is not None and (found := of_expected(row, old, new, known)) is not None:
            return found
        cell = old or new
        if old is not None and cell is not None and not cell.is_fp and not (new and self._broke_itself(new)):
            closed = self._gate(cell)
            if closed is not None:
                return replace(row, verdict="blocked", note=closed)
        found = of_presence(row, old, new) or by_size(row, documents=not (cell and cell.is_fp))
        return found.said("expected", f"expected: {known.reason}") if known and found.verdict == "same" else found

    @staticmethod
    def _broke_itself(new: CellResult) -> bool:
        return new.breakdown is not None and new.status != "skipped"

    def _gate(self, cell: CellResult) -> str | None:
        """Return why the cells of a model and seed cannot be judged, or None."""
        name = evaluation_name(cell.axes)
        if name not in self._closed:
            self._closed[name] = self._why_closed(full_precision_label(cell.axes))
        return self._closed[name]

    def _why_closed(self, label: str) -> str | None:
        old, new = self.old.cells.get(label), self.new.cells.get(label)
        if new is None or new.breakdown:
            return "full precision failed" if new else "full precision is missing"
        if old is None or old.breakdown:
            return "full precision failed in the baseline" if old else "full precision is not in the baseline"
        row = self._numbers(label, old, new)
        verdict = (of_presence(row, old, new) or by_size(row, documents=False)).verdict
        return None if verdict == "same" else f"full precision is {verdict}"

    def _numbers(self, label: str, old: CellResult | None, new: CellResult | None) -> ComparisonRow:
        """Return a row with all that is measured and no verdict yet."""
        cell = old or new
        if cell is None:
            return ComparisonRow(label, None, None, None, FLOOR, "same")
        alike = bool(old and new) and same_ground(self.old.ground(old or cell), self.new.ground(new or cell))
        tolerance = self.tolerances.of(cell, alike=alike)
        delta, interval = None, None
        if old is not None and new is not None:
            before, after = self.old.excess(old), self.new.excess(new)
            if before is not None and after is not None and math.isfinite(after - before):
                delta = after - before
                stratum = self._stratum(old, new)
                interval = None if stratum is None else paired_interval([stratum], label)
        identical = bool(old and new and new.weights_sha256 and old.weights_sha256 == new.weights_sha256)
        other = bool(alike and old and new and old.weights_sha256 and new.weights_sha256 and not identical)
        notes = ["other weights on equal ground"] if other else []
        notes += [] if tolerance.measured or delta is None or cell.is_fp else ["noise unmeasured"]
        (was, was_accuracy), (now, now_accuracy) = self._recovery(self.old, old), self._recovery(self.new, new)
        return ComparisonRow(
            label,
            None if old is None else old.loss,
            None if new is None else new.loss,
            delta,
            tolerance.loss,
            "same",
            identical,
            "; ".join(notes),
            None if old is None else old.accuracy,
            None if new is None else new.accuracy,
            tolerance.accuracy,
            interval,
            was,
            now,
            was_accuracy,
            now_accuracy,
            other,
            evaluation_name(cell.axes),
            None if old is None else old.sqnr,
            None if new is None else new.sqnr,
            tolerance.sqnr,
            None if old is None else old.effective_bits,
            None if new is None else new.effective_bits,
        )

    def _stratum(self, old: CellResult, new: CellResult) -> Stratum | None:
        """Return how the judged quantity differs document by document; None where that is not known."""
        then, now = self.old.evaluation(old.axes), self.new.evaluation(new.axes)
        known = then.documents and (then.documents, then.tokens) == (now.documents, now.tokens)
        parts = [old.losses, new.losses]
        if not old.is_fp:
            parts += [
                full.losses if full else []
                for full in map(Results.full_precision, (self.old, self.new), 2 * [old.axes])
            ]
        if not known or any(len(losses) != len(then.documents) for losses in parts):
            return None
        above = [after - before for before, after in zip(old.losses, new.losses, strict=True)]
        if not old.is_fp:
            above = [one - (after - before) for one, before, after in zip(above, *parts[2:], strict=True)]
        return Stratum(tuple(above), tuple(then.tokens))

    def _recovery(self, results: Results, cell: CellResult | None) -> tuple[float | None, float | None]:
        full = None if cell is None else results.full_precision(cell.axes)
        if cell is None or cell.is_fp or full is None:
            return None, None
        own, other = (
            results.evaluation(cell.axes),
            (self.new if results is self.old else self.old).evaluation(cell.axes),
        )
        # A baseline of before chance was kept is of the same model: a guess is as good there.
        loss = own.chance_loss if own.chance_loss is not None else other.chance_loss
        accuracy = own.chance_accuracy if own.chance_accuracy is not None else other.chance_accuracy
        return recovery(cell.loss, full.loss, loss), recovery(cell.accuracy, full.accuracy, accuracy)

    def seed_means(self, rows: Iterable[ComparisonRow]) -> Iterable[ComparisonRow]:
        """Yield the rows whose mean over seeds changed, of those without a cell that did."""
        found: dict[Row, list[tuple[ComparisonRow, CellResult]]] = {}
        for row in rows:
            cell = self.old.cells.get(row.label)
            if cell is not None and not cell.is_fp and row.verdict != "blocked":
                found.setdefault(row_of(cell.axes), []).append((row, cell))
        for seeds in found.values():
            if len(seeds) > 1 and all(row.verdict == "same" and row.delta is not None for row, _ in seeds):
                mean = self._mean(seeds)
                if mean.verdict != "same":
                    yield mean

    def _mean(self, seeds: list[tuple[ComparisonRow, CellResult]]) -> ComparisonRow:
        rows, count = [row for row, _ in seeds], len(seeds)
        label = cell_label({**seeds[0][1].axes, "seed": None}).removesuffix("/sNone")
        strata = [self._stratum(cell, self.new.cells[cell_label(cell.axes)]) for _, cell in seeds]
        known = [stratum for stratum in strata if stratum is not None]
        mean = ComparisonRow(
            f"{label} (mean of {count} seeds)",
            _mean_of([row.old for row in rows]),
            _mean_of([row.new for row in rows]),
            _mean_of([row.delta for row in rows]),
            max(row.tolerance for row in rows) / math.sqrt(count),
            "same",
            interval=paired_interval(known, label) if len(known) == count else None,
            old_recovery=_mean_of([row.old_recovery for row in rows]),
            new_recovery=_mean_of([row.new_recovery for row in rows]),
        )
        return by_size(mean)


def _mean_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None

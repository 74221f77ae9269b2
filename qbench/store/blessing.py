"""Making results the baseline: what would change by it, and what must not go in without a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from qbench import __version__
from qbench.errors import StoreError, nearest
from qbench.store.comparison import Comparison, compare_results
from qbench.store.results import (
    Blessing,
    CellResult,
    Expected,
    Results,
    evaluation_name,
    matters,
)
from qbench.store.tolerance import WIDE
from qbench.store.tolerance_change import ToleranceChange, above_floor, tolerance_changes
from qbench.store.verdict import ComparisonRow

_REPEATED = ("repeats", "accuracy_repeats", "sqnr_repeats")
"""Fields of a cell that hold what its repeats gave."""


@dataclass(frozen=True)
class Change:
    """What blessing changes in the baseline of one class of device.

    Attributes
    ----------
    suite, device : str
        Whose baseline.
    first : bool
        Whether there is none yet.
    rows : tuple of ComparisonRow
        Cells that are judged otherwise than the same, worst first; none in a first blessing.
    moved : tuple of ComparisonRow
        Cells whose numbers or weights moved within their tolerance, the largest growth first.
    added : tuple of str
        Labels that the old baseline does not have.
    gone : tuple of str
        Labels that only the old baseline has.
    tolerances : tuple of ToleranceChange
        Widened ones first.
    accepted : dict of str to str
        Failures that are accepted from now on: label to what is wrong.
    released : tuple of str
        Labels that were expected to fail and no longer are.
    environment : dict of str to tuple of str
        What bytes depend on and has changed.
    repeats : int
        Repeats that the old baseline did not have.
    held, unrepeated : int
        Cells of the new baseline, and those without a repeat of their own.
    edited : bool
        Whether the old baseline is not what was blessed last: it was changed by hand.
    """

    suite: str
    device: str
    first: bool
    rows: tuple[ComparisonRow, ...] = ()
    moved: tuple[ComparisonRow, ...] = ()
    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    tolerances: tuple[ToleranceChange, ...] = ()
    accepted: dict[str, str] = field(default_factory=dict)
    released: tuple[str, ...] = ()
    environment: dict[str, tuple[str, str]] = field(default_factory=dict)
    repeats: int = 0
    held: int = 0
    unrepeated: int = 0
    edited: bool = False

    @property
    def loosened(self) -> tuple[ToleranceChange, ...]:
        """Return the tolerances that become wider."""
        return tuple(one for one in self.tolerances if one.wider)

    @property
    def counts(self) -> dict[str, int]:
        """Return how much of each kind of change there is, without zeros."""
        verdicts: list[str] = [row.verdict for row in self.rows]
        counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
        counts |= {
            "moved within noise": len(self.moved),
            "new": len(self.added),
            "gone": len(self.gone),
            "accepted": len(self.accepted),
            "released": len(self.released),
            "wider tolerances": len(self.loosened),
            "narrower tolerances": len(self.tolerances) - len(self.loosened),
            "repeats": self.repeats,
        }
        return {kind: count for kind, count in counts.items() if count}

    @property
    def nothing(self) -> bool:
        """Whether the baseline stays as it is."""
        return not (self.first or self.counts or self.environment or self.edited)

    @property
    def default_reason(self) -> str | None:
        """Return the reason where none has to be given; else None.

        None has to be given for a first blessing whose tolerances are no wider than `WIDE`, and for one that only
        adds.
        """
        harmless = {"new", "narrower tolerances", "repeats"}
        if self.accepted or self.edited or any(one.measure == "loss" and one.new > WIDE for one in self.loosened):
            return None
        if not self.first and (self.environment or set(self.counts) - harmless):
            return None
        return "first blessing" if self.first else "cells or repeats added"


@dataclass(frozen=True)
class Request:
    """What is to be blessed.

    Attributes
    ----------
    suite, device : str
        Whose baseline.
    labels : frozenset of str
        Every cell that has to be there: those of the suite, or of what was chosen of it.
    partial : bool
        Whether that is a part of the suite: what is not in it stays as it is.
    accept : tuple of str
        Labels that may be missing, failed or fallen back from now on.
    """

    suite: str
    device: str
    labels: frozenset[str]
    partial: bool = False
    accept: tuple[str, ...] = ()


def prepare(old: Results | None, new: Results, request: Request, *, reason: str, date: str) -> tuple[Results, Change]:
    """Return the results that would be the baseline, and what that changes.

    Parameters
    ----------
    old : Results or None
        The present baseline of the class of device.
    new : Results
        What was run, with its repeats.
    request : Request
        What is to be blessed.
    reason, date : str
        What accepted failures are kept with.

    Raises
    ------
    StoreError
        A cell is missing or not clean and is not accepted, an accepted label is no cell or nothing is wrong with it,
        or full precision changed under cells that would stay.
    """
    before = old or Results(qbench_version=__version__, cells={})
    flaws = _flaws(new, request)
    _refuse(flaws, before, request)
    merged = _merge(before, new, request)
    wrong = {label: flaw for label, flaw in flaws.items() if label in request.accept}
    kept = {label: known for label, known in before.expected.items() if label in flaws or label not in request.labels}
    kept = {label: known for label, known in kept.items() if request.partial or label in request.labels}
    merged.expected.update(kept | {label: Expected(reason=reason, date=date) for label in wrong})
    return merged, _change(old, merged, wrong, request)


def sealed(results: Results, change: Change, *, reason: str, date: str) -> Results:
    """Return the results with one more entry in their history.

    Parameters
    ----------
    results : Results
        From `prepare`, with the old history.
    change : Change
        What changed.
    reason, date : str
        Why and when (UTC).
    """
    counts, digest = change.counts, results.digest
    entry = Blessing(date=date, reason=reason, qbench_version=__version__, counts=counts, sha256=digest)
    return results.model_copy(update={"history": [*results.history, entry]})


def _flaws(new: Results, request: Request) -> dict[str, str]:
    """Return what is wrong with which cells."""
    found = {label: "missing" for label in request.labels - set(new.cells)}
    return found | {label: cell.flaw for label, cell in new.cells.items() if cell.flaw is not None}


def _refuse(flaws: dict[str, str], before: Results, request: Request) -> None:
    labels = request.labels
    for label in request.accept:
        if label not in labels:
            raise StoreError(f"cannot accept {label!r}, which is no cell of {request.suite}{nearest(label, labels)}")
        if label not in flaws:
            raise StoreError(f"cannot accept {label!r}: nothing is wrong with it")
    known = {*request.accept, *before.expected}
    refused = [f"{label} ({flaw})" for label, flaw in sorted(flaws.items()) if label not in known]
    if refused:
        raise StoreError(
            f"not blessed, because of {len(refused)} of {len(labels)} cells: {', '.join(refused)}. "
            "Run them again, or --accept each one that is expected to fail"
        )


def _merge(before: Results, new: Results, request: Request) -> Results:
    kept = {label: cell for label, cell in before.cells.items() if request.partial and label not in request.labels}
    for label in kept:
        _check_full_precision(before, new, before.cells[label])
    environment = before.environment if kept else new.environment
    cells = dict(kept)
    for label, cell in new.cells.items():
        cells[label] = _with_repeats(_on(environment, new, cell), before.cells.get(label))
    used = {evaluation_name(cell.axes) for cell in cells.values()}
    evaluations = {name: one for name, one in {**before.evaluations, **new.evaluations}.items() if name in used}
    return Results(
        environment=environment,
        qbench_version=__version__,
        evaluations=evaluations,
        cells=dict(sorted(cells.items())),
        history=list(before.history),
    )


def _check_full_precision(before: Results, new: Results, kept: CellResult) -> None:
    old, now = (results.full_precision(kept.axes) for results in (before, new))
    if now is None:
        return
    if old is None or (old.metrics, old.losses) != (now.metrics, now.losses):
        name = evaluation_name(kept.axes)
        raise StoreError(
            f"full precision of {name} is not what it was, and other cells of the baseline are measured against it: "
            "bless all cells of that model and seed at once"
        )


def _on(environment: dict[str, str], results: Results, cell: CellResult) -> CellResult:
    ground = results.ground(cell)
    own = {name: value for name, value in ground.items() if environment.get(name) != value}
    return cell.model_copy(update={"environment": own})


def _measured(cell: CellResult) -> CellResult:
    """Return a cell without what says how often and where it was measured."""
    return cell.model_copy(update={**{name: [] for name in _REPEATED}, "environment": {}})


def _with_repeats(cell: CellResult, old: CellResult | None) -> CellResult:
    # What was measured of the noise of a cell stands for as long as the cell is the same.
    if old is None or any(getattr(cell, name) for name in _REPEATED) or _measured(cell) != _measured(old):
        return cell
    return cell.model_copy(update={name: getattr(old, name) for name in _REPEATED})


def _change(old: Results | None, merged: Results, accepted: dict[str, str], request: Request) -> Change:
    if old is None:
        return Change(
            request.suite,
            request.device,
            first=True,
            added=tuple(merged.cells),
            accepted=accepted,
            tolerances=above_floor(merged),
            repeats=_repeats(merged.cells.values()),
            held=len(merged.cells),
            unrepeated=_unrepeated(merged),
        )
    compared = compare_results(old, merged, set(merged.cells), suite=request.suite, device=request.device)
    held = {*merged.cells, *merged.expected}
    then, now = matters(old.environment), matters(merged.environment)
    known = {label: merged.cells[label] for label in set(old.cells) & set(merged.cells)}
    return Change(
        request.suite,
        request.device,
        first=False,
        rows=tuple(row for row in compared.rows if row.verdict not in ("same", "new", "expected")),
        moved=_moved(old, merged, compared),
        added=tuple(row.label for row in compared.rows if row.verdict == "new"),
        gone=tuple(sorted(label for label in {*old.cells, *old.expected} if label not in held)),
        tolerances=tolerance_changes(old, merged),
        accepted=accepted,
        released=tuple(sorted(set(old.expected) & held - set(merged.expected))),
        environment={
            name: (then.get(name, "-"), now.get(name, "-"))
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        },
        unrepeated=_unrepeated(merged),
        held=len(merged.cells),
        edited=not old.intact,
        repeats=max(0, _repeats(known.values()) - _repeats(old.cells[label] for label in known)),
    )


def _moved(old: Results, merged: Results, compared: Comparison) -> tuple[ComparisonRow, ...]:
    rows = [
        row
        for row in compared.rows
        if row.verdict in ("same", "expected")
        and row.label in old.cells
        and row.label in merged.cells
        and _measured(old.cells[row.label]) != _measured(merged.cells[row.label])
    ]
    return tuple(sorted(rows, key=lambda row: (-(row.delta or 0.0), row.label)))


def _unrepeated(results: Results) -> int:
    return sum(not cell.repeats for cell in results.cells.values() if cell.breakdown is None)


def _repeats(cells: Iterable[CellResult]) -> int:
    return sum(max(len(cell.repeats), len(cell.accuracy_repeats)) for cell in cells)

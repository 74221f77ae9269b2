"""How long cells take: by those of the same model and method that have ended, here or in an earlier run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from qbench.store.record import Record
from qbench.suite.cell import Cell

Kind = tuple[str, str]
"""Labels of a model and of a method or probe."""


def kind_of(cell: Cell) -> Kind:
    """Return what the time of a cell is known by."""
    axes = cell.axes()
    return str(axes["model"]), str(axes["method"])


def seconds_of(record: Record) -> float:
    """Return how long a cell took: from its start to its end, or where it does not tell those what it measured."""
    cost = record.cost.method_seconds + record.cost.evaluation_seconds
    if not (record.started and record.ended):
        return cost
    between = datetime.fromisoformat(record.ended) - datetime.fromisoformat(record.started)
    return max(cost, between.total_seconds())


@dataclass
class Durations:
    """What is known of how long cells take.

    Attributes
    ----------
    before : dict of Kind to list of float
        Seconds of stored cells.
    here : dict of Kind to list of float
        Seconds of cells that ended in this run.
    """

    before: dict[Kind, list[float]] = field(default_factory=dict)
    here: dict[Kind, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Durations:
        """Return what stored records tell; those that are not ``ok`` tell nothing."""
        found = cls()
        for record in records:
            if record.status == "ok":
                kind = str(record.axes["model"]), str(record.axes["method"])
                found.before.setdefault(kind, []).append(seconds_of(record))
        return found

    def learn(self, kind: Kind, seconds: float) -> None:
        """Take in a cell of this run that ended well."""
        self.here.setdefault(kind, []).append(seconds)

    def expected(self, kind: Kind) -> float | None:
        """Return the seconds that a cell will take, or None where nothing is known.

        The mean over this run, in which all earlier runs together count as one cell: they may have had another machine,
        which is corrected for by how long cells of all kinds took there and here. A kind of which nothing is known
        takes as long as the same method on other models.
        """
        here, before = self.here.get(kind, []), self.before.get(kind, [])
        if here or before:
            known = [*here, *([self._pace() * _mean(before)] if before else [])]
            return _mean(known)
        alike = {other for other in (*self.here, *self.before) if other[1] == kind[1]}
        known = [seconds for other in sorted(alike) if (seconds := self.expected(other)) is not None]
        return _mean(known) if known else None

    def left(self, waiting: Iterable[Kind], running: Iterable[tuple[Kind, float]], jobs: int) -> tuple[float, bool]:
        """Return how long the rest of a run takes.

        Parameters
        ----------
        waiting : iterable of Kind
            Cells that were not begun.
        running : iterable of (Kind, float)
            Cells that were, and for how many seconds.
        jobs : int
            Cells at a time.

        Returns
        -------
        tuple of (float, bool)
            Seconds, and whether they are of all cells: otherwise nothing is known of some, and it takes longer.
        """
        cells = [*((kind, 0.0) for kind in waiting), *running]
        seconds = {kind: self.expected(kind) for kind in {kind for kind, _ in cells}}
        parts = [max((seconds[kind] or 0.0) - elapsed, 0.0) for kind, elapsed in cells]
        return max(sum(parts) / max(jobs, 1), max(parts, default=0.0)), None not in seconds.values()

    def _pace(self) -> float:
        """Return how much longer cells take here than they took before; 1 where that is not known."""
        both = [kind for kind in self.here if kind in self.before]
        before = sum(_mean(self.before[kind]) for kind in both)
        return sum(_mean(self.here[kind]) for kind in both) / before if before > 0 else 1.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

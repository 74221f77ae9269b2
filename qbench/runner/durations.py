"""How long cells take: by those of the same model and method that have ended, here or in an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qbench.store.summary import Summary
from qbench.suite.cell import Cell

Kind = tuple[str, str]
"""Labels of a model and of a method or probe."""


def kind_of(cell: Cell) -> Kind:
    """Return what the time of a cell is known by."""
    axes = cell.axes()
    return str(axes["model"]), str(axes["method"])


@dataclass(slots=True)
class Times:
    """How long cells of one kind took, all together.

    Attributes
    ----------
    count : int
        Cells.
    total : float
        Seconds.
    """

    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """Return the seconds a cell."""
        return self.total / self.count

    def add(self, seconds: float) -> None:
        """Take in a cell."""
        self.count, self.total = self.count + 1, self.total + seconds


@dataclass
class Durations:
    """What is known of how long cells take.

    Attributes
    ----------
    before : dict of Kind to Times
        Of stored cells.
    here : dict of Kind to Times
        Of cells that ended in this run.
    """

    before: dict[Kind, Times] = field(default_factory=dict)
    here: dict[Kind, Times] = field(default_factory=dict)

    @classmethod
    def of(cls, summaries: Iterable[Summary]) -> Durations:
        """Return what stored records tell; those that are not ``ok`` tell nothing."""
        found = cls()
        for one in summaries:
            if one.status == "ok":
                kind = str(one.axes["model"]), str(one.axes["method"])
                found.before.setdefault(kind, Times()).add(one.seconds)
        return found

    def learn(self, kind: Kind, seconds: float) -> None:
        """Take in a cell of this run that ended well."""
        self.here.setdefault(kind, Times()).add(seconds)

    def expected(self, kind: Kind) -> float | None:
        """Return the seconds that a cell will take, or None where nothing is known.

        The mean over this run, in which all earlier runs together count as one cell: they may have had another machine,
        which is corrected for by how long cells of all kinds took there and here. A kind of which nothing is known
        takes as long as the same method on other models.
        """
        return self.expected_of([kind])[kind]

    def expected_of(self, kinds: Iterable[Kind]) -> dict[Kind, float | None]:
        """Return what `expected` says of each of some kinds."""
        pace = self._pace()
        known = {kind: self._known(kind, pace) for kind in sorted({*self.here, *self.before})}
        by_method: dict[str, list[float]] = {}
        for (_, method), seconds in known.items():
            by_method.setdefault(method, []).append(seconds)
        alike = {method: sum(seconds) / len(seconds) for method, seconds in by_method.items()}
        return {kind: known.get(kind, alike.get(kind[1])) for kind in kinds}

    def left(self, waiting: Mapping[Kind, int], running: Iterable[tuple[Kind, float]], jobs: int) -> tuple[float, bool]:
        """Return how long the rest of a run takes.

        Parameters
        ----------
        waiting : mapping of Kind to int
            How many cells of each kind were not begun.
        running : iterable of (Kind, float)
            Cells that were, and for how many seconds.
        jobs : int
            Cells at a time.

        Returns
        -------
        tuple of (float, bool)
            Seconds, and whether they are of all cells: otherwise nothing is known of some, and it takes longer.
        """
        begun = list(running)
        counts = {kind: count for kind, count in waiting.items() if count > 0}
        seconds = self.expected_of({*counts, *(kind for kind, _ in begun)})
        parts = [max((seconds[kind] or 0.0) - elapsed, 0.0) for kind, elapsed in begun]
        total = sum(parts) + sum(count * (seconds[kind] or 0.0) for kind, count in counts.items())
        longest = max([*parts, *(seconds[kind] or 0.0 for kind in counts)], default=0.0)
        return max(total / max(jobs, 1), longest), None not in seconds.values()

    def _known(self, kind: Kind, pace: float) -> float:
        here, before = self.here.get(kind), self.before.get(kind)
        if before is None:
            return here.mean if here is not None else 0.0
        if here is None:
            return pace * before.mean
        return (here.total + pace * before.mean) / (here.count + 1)

    def _pace(self) -> float:
        """Return how much longer cells take here than they took before; 1 where that is not known."""
        both = [kind for kind in list(self.here) if kind in self.before]
        before = sum(self.before[kind].mean for kind in both)
        return sum(self.here[kind].mean for kind in both) / before if before > 0 else 1.0

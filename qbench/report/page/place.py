"""The cells a page can show: every place in the suite, with its record where there is one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from qbench.report.entries import Axes, outcome
from qbench.report.run import Run
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.suite.cell import cell_label

AXES = ("model", "quantizer", "bits", "method", "seed")
"""Of `Cell.axes`, in its order."""

Row = tuple[str, str | None, int | None, str]
"""Labels of model, quantizer and method, and the bits between them: what all seeds of an entry share."""


@dataclass(frozen=True)
class Place:
    """One cell of one run.

    Attributes
    ----------
    run : Run
        Where it belongs.
    axes : mapping
        `Cell.axes`.
    record : Record or None
        Its newest record.
    skip : str or None
        Why the suite leaves it out.
    probe : bool
        Whether a probe measures it.
    """

    run: Run
    axes: Axes
    record: Record | None
    skip: str | None
    probe: bool

    @property
    def label(self) -> str:
        """Return the one-line name."""
        return cell_label(dict(self.axes))

    @property
    def route(self) -> str:
        """Return the name in the page's address: the same whenever the cell is run again, also where it is missing."""
        return hashlib.sha256(f"{self.run.name}\n{self.label}".encode()).hexdigest()[:12]

    @property
    def row(self) -> Row:
        """Return what all seeds of the entry share."""
        bits = self.axes["bits"]
        quantizer = self.axes["quantizer"]
        return (
            str(self.axes["model"]),
            None if quantizer is None else str(quantizer),
            None if bits is None else int(bits),
            str(self.axes["method"]),
        )

    @property
    def seed(self) -> int:
        """Return the seed."""
        return int(self.axes["seed"] or 0)

    @property
    def status(self) -> str:
        """Return the status, as the leaderboard has it."""
        return outcome({**self.axes, "skip": self.skip}, self.record)[0]

    @property
    def reason(self) -> str | None:
        """Return why the cell is not ``ok``; None where it is, or where nobody knows."""
        return outcome({**self.axes, "skip": self.skip}, self.record)[1]


def places_of(run: Run) -> list[Place]:
    """Return every cell of a run, in the suite's order, probes last; without a suite those that have records."""
    cells = newest(record for record in run.records if not record.is_probe)
    probes = newest(record for record in run.records if record.is_probe)
    return [*_places(run, run.places, cells, probe=False), *_places(run, run.probes, probes, probe=True)]


def by_row(places: Iterable[Place]) -> dict[Row, list[Place]]:
    """Return the seeds of every entry."""
    found: dict[Row, list[Place]] = {}
    for place in places:
        found.setdefault(place.row, []).append(place)
    return found


def _places(run: Run, expected: Iterable[Axes], records: dict[str, Record], *, probe: bool) -> list[Place]:
    known = list(expected)
    if not known and not run.places:
        known = [record.axes for _, record in sorted(records.items())]
    found = []
    for axes in known:
        skip = axes.get("skip")
        plain = {name: axes[name] for name in AXES}
        record = records.get(cell_label(plain))
        found.append(Place(run, plain, record, None if skip is None else str(skip), probe))
    return found

"""The comparison with the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qbench.report.comparison_cells import advice, blocked, cells_of, grounds, headline
from qbench.report.run import Run
from qbench.store.verdict import ComparisonRow

_QUIET = frozenset({"same", "expected", "new"})


@dataclass(frozen=True)
class Compared:
    """A run beside its baseline.

    Attributes
    ----------
    run : Run
        Which.
    headline : str
        What came out; where there is no comparison, why.
    passed : bool or None
        None where there is no comparison.
    lines : list of str
        What is to be known besides.
    changed, others : list of tuple of (bool, list of str)
        Whether a row is red, and its cells under `qbench.report.comparison_cells.HEADERS`; those that changed, and
        those that did not.
    """

    run: Run
    headline: str
    passed: bool | None
    lines: list[str]
    changed: list[tuple[bool, list[str]]]
    others: list[tuple[bool, list[str]]]


def compared(run: Run) -> Compared:
    """Return a run beside its baseline."""
    comparison = run.comparison
    if comparison is None:
        return Compared(run, run.uncompared or "there is no baseline to compare with", None, [], [], [])

    def told(rows: Sequence[ComparisonRow]) -> list[tuple[bool, list[str]]]:
        return [(comparison.red(row), cells_of(row)) for row in rows]

    loud = [row for row in comparison.rows if row.verdict not in _QUIET or comparison.red(row)]
    quiet = [row for row in comparison.rows if row not in loud]
    return Compared(
        run,
        headline(comparison),
        comparison.passed,
        [*grounds(comparison), *advice(comparison), *blocked(comparison.rows)],
        told([*comparison.seed_means, *loud]),
        told(quiet),
    )


def row_of(run: Run, label: str) -> list[str] | None:
    """Return what the comparison says of one cell, under its headers; None where it says nothing."""
    rows = () if run.comparison is None else run.comparison.rows
    return next((cells_of(row) for row in rows if row.label == label), None)

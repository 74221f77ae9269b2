"""All figures of some records, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from qbench.claims.subject import Subject, subjects
from qbench.report.figures.board import write_all
from qbench.report.figures.compatibility import compatibility
from qbench.report.figures.distance import distance
from qbench.report.figures.drawing import Format
from qbench.report.figures.figure import Figure
from qbench.report.figures.first_entry import entries_by_bound, entries_by_rate
from qbench.report.figures.gap import gap
from qbench.report.figures.inward import inward
from qbench.report.figures.locus import locus
from qbench.report.figures.quadratic import quadratic
from qbench.report.figures.second_order import second_order
from qbench.report.figures.segments import segments
from qbench.report.figures.step_ladder import sharp_failure, step_ladder
from qbench.report.figures.training import training
from qbench.report.figures.width import width
from qbench.store.record import Record

FAMILIES: tuple[Callable[[Sequence[Subject]], list[Figure]], ...] = (
    sharp_failure,
    step_ladder,
    quadratic,
    second_order,
    segments,
    inward,
    training,
    locus,
    entries_by_rate,
    compatibility,
    gap,
    distance,
    width,
    entries_by_bound,
)


def figures_of(records: Iterable[Record]) -> list[Figure]:
    """Return every figure that records have the data of, in the order of the claims.

    Parameters
    ----------
    records : iterable of Record
        Full precision, methods and probes, in any order: figures do not depend on it.
    """
    found = subjects(records)
    return [figure for family in FAMILIES for figure in family(found)]


def write_figures(records: Iterable[Record], folder: Path, formats: Sequence[Format] = ("svg", "png")) -> list[Path]:
    """Write every figure that records have the data of.

    Parameters
    ----------
    records : iterable of Record
        See `figures_of`.
    folder : Path
        Where files go; made when missing. Files of the same name are replaced.
    formats : sequence of str
        ``svg`` or ``png``, one file each.

    Returns
    -------
    list of Path
        What was written; a figure whose data are not in the records is not among them.

    Raises
    ------
    QBenchError
        The drawing libraries are missing: ``pip install qbench[report]``.
    """
    return write_all(figures_of(records), folder, formats)

"""A run beside numbers that others have published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from qbench.suite.cell import FP, cell_label
from qbench.suite.match import Names, matches
from qbench.suite.xref import place_names

if TYPE_CHECKING:
    from qbench.store.record import Record
    from qbench.suite.xref import Xref


@dataclass(frozen=True)
class Published:
    """A published number, and what was found here.

    Attributes
    ----------
    cell : str
        Model, quantizer, bits and method.
    metric, compare, source, note : str
        As the suite says; see `qbench.suite.xref.Xref`.
    there : float
        The published number.
    here : float or None
        The mean over the seeds; None where a cell is missing, is not clean, or has no such metric.
    seeds : int
        How many there are.
    quotient : float or None
        What was found over what was published, on the quantity that is compared.
    within : float
        How far the quotient may be from 1, as a share.
    verdict : str
        ``agrees``, ``differs``, or ``no number here``.
    """

    cell: str
    metric: str
    compare: str
    source: str
    note: str
    there: float
    here: float | None
    seeds: int
    quotient: float | None
    within: float
    verdict: str


def beside_published(records: Iterable[Record], rows: Sequence[Xref]) -> tuple[Published, ...]:
    """Return what the records have where others have published a number.

    Parameters
    ----------
    records : iterable of Record
        One of each cell.
    rows : sequence of Xref
        From the suite.
    """
    named = [(record, place_names(record.axes)) for record in records if not record.is_probe]
    return tuple(_compared(row, named) for row in rows)


def _compared(row: Xref, named: Sequence[tuple[Record, Names]]) -> Published:
    records = _of_place(named, row.wanted())
    here = _mean(records, row.metric)
    quotient = None if here is None else here / row.value
    if row.compare == "ratio" and here is not None and row.fp is not None:
        full = _mean(_of_place(named, {"model": [row.model], "method": [FP]}), row.metric)
        quotient = None if full is None else here / full / (row.value / row.fp)
    if quotient is not None and not (math.isfinite(quotient) and quotient > 0):
        quotient = None
    axes: dict[str, str | int | None] = {
        "model": row.model,
        "quantizer": row.quantizer,
        "bits": row.bits,
        "method": row.method,
        "seed": 0,
    }
    return Published(
        cell=cell_label(axes).rpartition("/")[0],
        metric=row.metric,
        compare=row.compare,
        source=row.source,
        note=row.note,
        there=row.value,
        here=here,
        seeds=len(records),
        quotient=quotient,
        within=row.within,
        verdict=_verdict(quotient, row.within),
    )


def _of_place(named: Sequence[tuple[Record, Names]], wanted: Mapping[str, list[str]]) -> list[Record]:
    return [record for record, names in named if matches(names, wanted)]


def _verdict(quotient: float | None, within: float) -> str:
    if quotient is None:
        return "no number here"
    return "agrees" if abs(math.log(quotient)) <= math.log1p(within) else "differs"


def _mean(records: Sequence[Record], metric: str) -> float | None:
    """Return the mean over seeds; None where any of them is no result."""
    values = [record.metrics.get(metric) for record in records if record.clean]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(records) else None

"""How far the seeds of one row lie apart: the measured noise that a tolerance is made from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from qbench.store.record import Record
from qbench.suite.cell import FP

Row = tuple[str | int | None, ...]
"""Model, quantizer, bits and method: the axes without the seed."""


class Spread(BaseModel):
    """Excess loss ``D = L - L_fp`` over the seeds of one row, nats a token (or an image).

    Attributes
    ----------
    model, quantizer, bits, method
        The row.
    seeds : int
        Seeds with a finite D.
    mean : float
        Mean of D.
    sd : float or None
        Sample standard deviation of D; None with one seed.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    quantizer: str
    bits: int
    method: str
    seeds: int
    mean: float
    sd: float | None

    @property
    def row(self) -> Row:
        """Return the axes without the seed."""
        return (self.model, self.quantizer, self.bits, self.method)


def row_of(axes: dict[str, str | int | None]) -> Row:
    """Return the axes without the seed."""
    return (axes["model"], axes["quantizer"], axes["bits"], axes["method"])


def measure_spread(records: Iterable[Record]) -> list[Spread]:
    """Return the spread of each quantized row, sorted; a seed counts when it and its FP cell have a finite loss."""
    kept = [
        record for record in records if record.status == "ok" and record.loss is not None and math.isfinite(record.loss)
    ]
    full = {(r.axes["model"], r.axes["seed"], r.loss_key): r.loss for r in kept if r.axes["method"] == FP}
    rows: dict[Row, list[float]] = {}
    for record in kept:
        reference = full.get((record.axes["model"], record.axes["seed"], record.loss_key))
        if record.axes["quantizer"] is not None and reference is not None and record.loss is not None:
            rows.setdefault(row_of(record.axes), []).append(record.loss - reference)
    return [
        Spread(
            model=str(model),
            quantizer=str(quantizer),
            bits=int(bits or 0),
            method=str(method),
            seeds=len(excess),
            mean=statistics.fmean(excess),
            sd=statistics.stdev(excess) if len(excess) > 1 else None,
        )
        for (model, quantizer, bits, method), excess in sorted(rows.items(), key=lambda item: str(item[0]))
    ]


def accuracy_sd(accuracies: Iterable[tuple[Mapping[str, str | int | None], float]]) -> dict[Row, float]:
    """Return the sample standard deviation over seeds of each quantized row's accuracy less full precision's, a share.

    Parameters
    ----------
    accuracies : iterable of (mapping, float)
        Axes and accuracy of each cell. A row with fewer than two seeds that have a full-precision cell is not there.
    """
    known = [(dict(axes), accuracy) for axes, accuracy in accuracies]
    full = {(axes["model"], axes["seed"]): accuracy for axes, accuracy in known if axes["method"] == FP}
    rows: dict[Row, list[float]] = {}
    for axes, accuracy in known:
        reference = full.get((axes["model"], axes["seed"]))
        if axes["quantizer"] is not None and reference is not None:
            rows.setdefault(row_of(axes), []).append(accuracy - reference)
    return {row: statistics.stdev(changes) for row, changes in rows.items() if len(changes) > 1}

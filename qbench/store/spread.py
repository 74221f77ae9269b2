"""How far the seeds of one row lie apart, and its repeats: what a baseline tells its readers of a row's scatter."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from qbench.store.noise import Row, loss_noise, pool_of, row_of
from qbench.store.results import Results
from qbench.suite.cell import FP


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
        Sample standard deviation of D over the seeds; None with one seed.
    noise : float or None
        Standard deviation of D over repeats under other arithmetic, pooled (see `pool_of`); None where nothing was
        repeated.
    freedom : int
        Degrees of freedom of `noise`.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    quantizer: str
    bits: int
    method: str
    seeds: int
    mean: float
    sd: float | None
    noise: float | None = None
    freedom: int = 0

    @property
    def row(self) -> Row:
        """Return the axes without the seed."""
        return (self.model, self.quantizer, self.bits, self.method)


def measure_spread(results: Results) -> list[Spread]:
    """Return the spread of each quantized row, sorted; a seed counts when it and its FP cell have a finite loss."""
    rows: dict[Row, list[float]] = {}
    noise = loss_noise(results)
    for cell in results.cells.values():
        full = results.full_precision(cell.axes)
        if cell.axes["quantizer"] is None or cell.breakdown or full is None or full.breakdown:
            continue
        if (one := results.excess(cell)) is not None:
            rows.setdefault(row_of(cell.axes), []).append(one)
    found = []
    for row, above in sorted(rows.items(), key=lambda item: str(item[0])):
        model, quantizer, bits, method = row
        repeated = noise.get(pool_of({"model": model, "method": method, "bits": bits}))
        found.append(
            Spread(
                model=str(model),
                quantizer=str(quantizer),
                bits=int(bits or 0),
                method=str(method),
                seeds=len(above),
                mean=statistics.fmean(above),
                sd=statistics.stdev(above) if len(above) > 1 else None,
                noise=None if repeated is None else repeated.sd,
                freedom=0 if repeated is None else repeated.freedom,
            )
        )
    return found


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

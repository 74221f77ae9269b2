"""How far the same cell lies apart under other arithmetic: the noise that a tolerance is made from.

Another processor, thread count or library sums in another order, and a rounding that lay on the fence falls to the
other side. A cell's repeats under other arithmetic measure that, pooled over the seeds and quantizers of one model,
method and bitwidth, since each cell has few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qbench.store import student
from qbench.store.results import Axes, Results

LEVEL = 0.9995
"""Of the t quantile: one cell in a thousand that has not changed is beyond the tolerance, to either side."""

Row = tuple[str | int | None, ...]
"""Model, quantizer, bits and method: the axes without the seed."""

Pool = tuple[str, str, int | None]
"""Model, method and bits: which cells share one measure of noise."""


@dataclass(frozen=True)
class Noise:
    """Scatter of repeats around the mean of their cell.

    Attributes
    ----------
    sd : float
        Pooled standard deviation; nats a token (or an image), or a share.
    freedom : int
        Degrees of freedom: repeats less one, summed over the cells of the pool.
    """

    sd: float
    freedom: int

    @property
    def tolerance(self) -> float:
        """Return how far two runs lie apart at most: ``t sqrt(2) sd``, in the unit of `sd`."""
        return student.quantile(LEVEL, self.freedom) * math.sqrt(2) * self.sd


def row_of(axes: Axes) -> Row:
    """Return the axes without the seed."""
    return (axes["model"], axes["quantizer"], axes["bits"], axes["method"])


def pool_of(axes: Axes) -> Pool:
    """Return which cells share one measure of noise: of the same model, method (its options aside) and bits."""
    bits = axes["bits"]
    return str(axes["model"]), str(axes["method"]).partition("[")[0], None if bits is None else int(bits)


def pooled(cells: Iterable[tuple[Pool, list[float]]]) -> dict[Pool, Noise]:
    """Return the noise of each pool.

    Parameters
    ----------
    cells : iterable of (Pool, list of float)
        Of each cell all that it was measured to be. A cell that was measured once says nothing; a pool of such cells
        is not there.
    """
    squares: dict[Pool, float] = {}
    freedom: dict[Pool, int] = {}
    for pool, values in cells:
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares[pool] = squares.get(pool, 0.0) + math.fsum((value - mean) ** 2 for value in values)
            freedom[pool] = freedom.get(pool, 0) + len(values) - 1
    return {pool: Noise(math.sqrt(squares[pool] / count), count) for pool, count in freedom.items()}


def loss_noise(results: Results) -> Mapping[Pool, Noise]:
    """Return the noise of what cells are judged by, nats a token (or an image): of the loss for full precision."""
    return pooled(
        (pool_of(cell.axes), [value, *cell.repeats])
        for cell in results.cells.values()
        if (value := results.excess(cell)) is not None and math.isfinite(value)
    )


def loss_ranges(results: Results) -> Mapping[Row, float]:
    """Return how far the repeats of any one cell of a row lie apart, nats a token (or an image).

    A pool holds many quantizers, and a noisy one must not be lost among quiet ones.
    """
    found: dict[Row, float] = {}
    for cell in results.cells.values():
        value = results.excess(cell)
        if cell.repeats and value is not None and math.isfinite(value):
            measured = [value, *cell.repeats]
            row = row_of(cell.axes)
            found[row] = max(found.get(row, 0.0), max(measured) - min(measured))
    return found


def accuracy_noise(results: Results) -> Mapping[Pool, Noise]:
    """Return the noise of accuracies, shares."""
    return pooled(
        (pool_of(cell.axes), [cell.accuracy, *cell.accuracy_repeats])
        for cell in results.cells.values()
        if cell.accuracy is not None
    )


def sqnr_noise(results: Results) -> Mapping[Pool, Noise]:
    """Return the noise of the weights' signal-to-noise ratios, decibels."""
    return pooled(
        (pool_of(cell.axes), [cell.sqnr, *cell.sqnr_repeats])
        for cell in results.cells.values()
        if cell.sqnr is not None and math.isfinite(cell.sqnr)
    )

"""How much a cell may move before it counts as changed."""

from __future__ import annotations

from dataclasses import dataclass

from qbench.store.noise import accuracy_noise, loss_noise, loss_ranges, pool_of, row_of, sqnr_noise
from qbench.store.results import CellResult, Results
from qbench.store.spread import accuracy_sd, measure_spread

FLOOR = 0.002
"""The least tolerance of an excess loss, nats a token (or an image)."""

FULL_PRECISION_FLOOR = 0.001
"""The least tolerance of the loss of full precision, nats a token (or an image)."""

UNMEASURED = 0.02
"""The least tolerance of an excess loss on another ground where nothing was repeated."""

ELSEWHERE = 0.01
"""The least tolerance of an excess loss on another ground, nats a token (or an image).

It is for what repeats are too few to show: where one rounding tips over, those behind it do too, so that most repeats
move nothing and a few move a hundredth. The error of the weights keeps its own, much finer tolerance there.
"""

WIDE = 0.1
"""A tolerance of a loss above which a comparison says so, nats a token (or an image): it passes nearly everything."""

ACCURACY_FLOOR = 0.005
"""The least tolerance of an accuracy: half a point, five images of a thousand."""

SQNR_FLOOR = 0.02
"""The least tolerance of the weights' signal-to-noise ratio, decibels: half a per cent of their squared error.

Roundings that other arithmetic tips over have moved it by .003 dB at most, steps that are 1 % too wide move it by .09.
"""

UNMEASURED_SQNR = 0.05
"""The same on another ground where nothing was repeated."""


@dataclass(frozen=True)
class Tolerance:
    """How much one cell may move.

    Attributes
    ----------
    loss : float
        Nats a token (or an image).
    accuracy : float
        A share.
    sqnr : float
        Of the weights' signal-to-noise ratio, decibels.
    measured : bool
        Whether repeats stand behind `loss`, or the ground is the same and bytes have to be.
    freedom : int
        Degrees of freedom of the noise behind `loss`; 0 where there are no repeats.
    """

    loss: float
    accuracy: float
    sqnr: float
    measured: bool
    freedom: int = 0


class Tolerances:
    """The tolerances that a baseline's measured scatter gives.

    Parameters
    ----------
    results : Results
        The baseline's part for one class of device.
    """

    def __init__(self, results: Results) -> None:
        self._noise, self._accuracy_noise = loss_noise(results), accuracy_noise(results)
        self._sqnr_noise = sqnr_noise(results)
        self._ranges = loss_ranges(results)
        self._over_seeds = {spread.row: spread.sd or 0.0 for spread in measure_spread(results)}
        clean = [(cell.axes, cell.accuracy) for cell in results.cells.values() if cell.status == "ok"]
        self._accuracy_over_seeds = accuracy_sd((axes, value) for axes, value in clean if value is not None)

    def of(self, cell: CellResult, *, alike: bool) -> Tolerance:
        """Return the tolerance of a cell.

        Parameters
        ----------
        cell : CellResult
            Of the baseline.
        alike : bool
            Whether it was run again on the same ground, where equal code gives equal bytes.
        """
        floor = FULL_PRECISION_FLOOR if cell.is_fp else FLOOR
        if alike:
            # Equal code gives equal bytes there: repeats under other arithmetic say nothing of it.
            return Tolerance(floor, ACCURACY_FLOOR, SQNR_FLOOR, measured=True)
        pool, row = pool_of(cell.axes), row_of(cell.axes)
        noise, of_accuracy, of_sqnr = (one.get(pool) for one in (self._noise, self._accuracy_noise, self._sqnr_noise))
        shares = 3 * self._accuracy_over_seeds.get(row, 0.0) if of_accuracy is None else of_accuracy.tolerance
        accuracy = max(ACCURACY_FLOOR, shares)
        sqnr = UNMEASURED_SQNR if of_sqnr is None else max(SQNR_FLOOR, of_sqnr.tolerance)
        if not cell.is_fp:
            floor = max(ELSEWHERE, 2 * self._ranges.get(row, 0.0))
        if noise is not None:
            return Tolerance(max(floor, noise.tolerance), accuracy, sqnr, measured=True, freedom=noise.freedom)
        if cell.is_fp:
            return Tolerance(floor, accuracy, sqnr, measured=False)
        return Tolerance(max(UNMEASURED, 3 * self._over_seeds.get(row, 0.0)), accuracy, sqnr, measured=False)

"""What is foretold of each method at each bitwidth, and what to do there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qbench.claims.regimes import Basin
from qbench.diagnosis.correction import METHODS, Corrections, chance_of, inputs_of
from qbench.diagnosis.depth import excess_at
from qbench.diagnosis.law import Law, law_of, margin
from qbench.diagnosis.reading import Reading

Answer = Literal["ptq", "second_order", "qat", "hopeless"]

ANSWERS: Mapping[Answer, str] = {
    "ptq": "PTQ is enough",
    "second_order": "PTQ with second-order rounding",
    "qat": "QAT needed",
    "hopeless": "hopeless at this grid",
}

DEFAULT_STEPS = 200
"""Steps of training that are asked about when nobody says how many: the longest that forecasts were fitted on."""


@dataclass(frozen=True)
class Forecast:
    """What is foretold of one method.

    Attributes
    ----------
    depth : float
        See `qbench.diagnosis.depth.depth`.
    excess, low, high : float
        D and its 90 % interval, nats a token (or an image).
    """

    depth: float
    excess: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """What is foretold at one bitwidth.

    Attributes
    ----------
    reading : Reading
        What was measured.
    forecasts : mapping of str to Forecast
        By ``rtn``, ``second_order`` and ``qat``.
    answer : str
        See `answer`.
    sure : bool
        Whether both ends of all intervals would give the same answer.
    margin : float
        The basin's radius over the size of the rounding error.
    exponent : float
        How steep the loss is there: ``d ln D / d ln |e|``.
    bracketed : bool
        Whether the basin's edge lies between two bitwidths that were measured.
    """

    reading: Reading
    forecasts: Mapping[str, Forecast]
    answer: Answer
    sure: bool
    margin: float
    exponent: float
    bracketed: bool = True


@dataclass(frozen=True)
class Ladder:
    """What is foretold of one model, quantizer and seed, at falling bits.

    Attributes
    ----------
    rows : tuple of Row
        By falling bits.
    law : Law
        Excess over relative error.
    """

    rows: tuple[Row, ...]
    law: Law

    @property
    def readings(self) -> list[Reading]:
        """What was measured, by falling bits."""
        return [row.reading for row in self.rows]

    def failing(self, method: str = "rtn") -> int | None:
        """Return the most bits at which a method is foretold to fail; None where it does at none."""
        return max((row.reading.bits for row in self.rows if self._fails(row, method)), default=None)

    @staticmethod
    def _fails(row: Row, method: str) -> bool:
        return method in row.forecasts and row.forecasts[method].excess > failure(row.reading.basin)


def failure(basin: Basin) -> float:
    """Return the excess from which a method has failed, nats, but for what the evaluation cannot resolve."""
    return basin.tau_f(0.0)


def answer(excesses: Sequence[float], inside: float, failed: float) -> Answer:
    """Return the cheapest thing that does.

    Parameters
    ----------
    excesses : sequence of three float
        Excess of rounding to nearest, of second-order rounding and of training, nats.
    inside, failed : float
        Edge of the basin, and the excess from which a method has failed.

    Returns
    -------
    str
        ``ptq`` or ``second_order`` where that stays inside the basin; otherwise ``hopeless`` where all fail, and
        ``qat``.
    """
    rtn, second_order, qat = excesses
    if rtn <= inside:
        return "ptq"
    if second_order <= inside:
        return "second_order"
    return "qat" if min(second_order, qat) <= failed else "hopeless"


def ladders(
    readings: Iterable[Reading], corrections: Corrections, steps: int = DEFAULT_STEPS
) -> dict[tuple[str, str, str, int], Ladder]:
    """Return what is foretold, by model, quantizer, treatment of batch norms and seed.

    Parameters
    ----------
    readings : iterable of Reading
        Of any models.
    corrections : Corrections
        From stand-ins to methods.
    steps : int
        Of training.
    """
    held: dict[tuple[str, str, str, int], list[Reading]] = {}
    for one in readings:
        held.setdefault(one.place, []).append(one)
    return {place: ladder(own, corrections, steps) for place, own in held.items()}


def ladder(readings: Sequence[Reading], corrections: Corrections, steps: int = DEFAULT_STEPS) -> Ladder:
    """Return what is foretold of one model, quantizer and seed; see `ladders`."""
    law = law_of(readings)
    ordered = sorted(readings, key=lambda one: -one.bits)
    return Ladder(tuple(_row(one, law, corrections, steps) for one in ordered), law)


def _row(reading: Reading, law: Law, corrections: Corrections, steps: int) -> Row:
    found = {method: forecast(method, reading, corrections, steps) for method in METHODS}
    basin = reading.basin
    inside, failed = basin.tau(0.0), failure(basin)
    answers = [
        answer([getattr(found[method], end) for method in METHODS], inside, failed) for end in ("excess", "low", "high")
    ]
    return Row(
        reading,
        found,
        answers[0],
        len(set(answers)) == 1,
        margin(law, reading.relative_error),
        law.exponent(reading.relative_error),
        law.brackets_edge,
    )


def forecast(method: str, reading: Reading, corrections: Corrections, steps: int) -> Forecast:
    """Return what is foretold of a method, given what was measured.

    Parameters
    ----------
    method : str
        Of `qbench.diagnosis.correction.METHODS`.
    reading : Reading
        What was measured.
    corrections : Corrections
        From stand-ins to methods.
    steps : int
        Of training.
    """
    correction, tolerance = corrections[method], reading.basin.tolerance
    start, end = inputs_of(method, reading)
    deep = correction.depth_of(start, end, steps if method == "qat" else 0)
    low, high = correction.interval(deep, chance_of(method, reading))
    return Forecast(deep, *(excess_at(value, tolerance) for value in (deep, low, high)))

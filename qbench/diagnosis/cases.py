"""Readings beside what came out: what corrections are fitted to, and judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qbench.diagnosis.correction import METHODS, Case, chance_of, family_of, inputs_of
from qbench.diagnosis.depth import EDGE, depth
from qbench.diagnosis.outcome import Measured, Outcome, Place
from qbench.diagnosis.reading import Reading

Outcomes = Mapping[tuple[Place, int], Outcome]
"""By place and bits."""


def outcome_of(reading: Reading, found: Outcomes) -> Outcome | None:
    """Return what was measured where a reading was taken; None where nothing was."""
    return found.get((reading.place, reading.bits))


def measured_of(method: str, outcome: Outcome) -> Measured | None:
    """Return what was measured of one of `METHODS`; None where it was not run."""
    found: Measured | None = getattr(outcome, method)
    return found


def cases(readings: Iterable[Reading], found: Outcomes) -> dict[str, list[Case]]:
    """Return what corrections are fitted to, by method.

    Training counts where rounding leaves the basin: inside of it nobody would train, and what is seen there is what
    fine-tuning does to the model, not to its rounding.
    """
    held: dict[str, list[Case]] = {method: [] for method in METHODS}
    for reading in readings:
        outcome = outcome_of(reading, found)
        if outcome is None:
            continue
        family, tolerance = family_of(reading.model), reading.basin.tolerance
        for method in METHODS:
            measured = measured_of(method, outcome)
            start, end = inputs_of(method, reading)
            if measured is None or (method == "qat" and start <= EDGE):
                continue
            points = measured.way if method == "qat" else ((0, measured.excess),)
            sd = chance_of(method, reading)
            held[method] += [Case(family, start, end, depth(excess, tolerance), steps, sd) for steps, excess in points]
    return held

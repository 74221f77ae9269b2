"""The probe `ladder`: the excess over rounding and over noise, as the step size grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qbench.claims.curves import crossing
from qbench.claims.subject import LackingError, Subject
from qbench.store.record import Record


@dataclass(frozen=True)
class Rungs:
    """One curve of a ladder.

    Attributes
    ----------
    step : tuple of float
        Step sizes in units of the weights, rising.
    excess, tau : tuple of float
        D and the threshold of the basin at each, nats.
    """

    step: tuple[float, ...]
    excess: tuple[float, ...]
    tau: tuple[float, ...]

    @property
    def outside(self) -> int | None:
        """Return the first rung whose excess is above its threshold, or None."""
        return next((i for i, (d, tau) in enumerate(zip(self.excess, self.tau, strict=True)) if not d <= tau), None)


@dataclass(frozen=True)
class Exits:
    """Where the two curves of a ladder leave the basin, by one threshold.

    Attributes
    ----------
    level : float
        The threshold, nats: the higher of the two at which the curves are first seen outside.
    rtn, noise : float or None
        Step sizes; None where the curve does not get there.
    last : float
        The largest step size of the ladder.
    first_step : float
        The step size of the grid that the ladder's factors multiply.
    """

    level: float
    rtn: float | None
    noise: float | None
    last: float
    first_step: float


def rungs(subject: Subject, ladder: Record, curve: str) -> Rungs:
    """Return the curve ``rtn`` or ``noise`` of a ladder.

    Raises
    ------
    LackingError
        The record has no such curve.
    """
    step, excess = trace(ladder, "step"), trace(ladder, f"{curve}/excess")
    ses: Sequence[float] = trace(ladder, f"{curve}/se")
    return Rungs(tuple(step), tuple(excess), tuple(subject.tau(se) for se in ses))


def exits(subject: Subject, ladder: Record) -> Exits:
    """Return where rounding and noise leave the basin.

    Raises
    ------
    LackingError
        A curve is missing, or is outside from its first step on.
    """
    curves = {name: rungs(subject, ladder, name) for name in ("rtn", "noise")}
    for name, one in curves.items():
        if one.outside == 0:
            raise LackingError(f"a ladder with finer steps: {name} is outside the basin at its first")
    level = max(one.tau[one.outside or 0] for one in curves.values())
    found = {name: crossing(one.step, one.excess, level) for name, one in curves.items()}
    step, factor = trace(ladder, "step"), trace(ladder, "factor")
    return Exits(level, found["rtn"], found["noise"], step[-1], step[0] / factor[0])


def ladder_of(subject: Subject, seed: int) -> Record:
    """Return the ladder of a seed that reaches farthest among those that begin inside the basin.

    Raises
    ------
    LackingError
        There is no sound ladder.
    """
    gaps, found = [], []
    for bits in subject.bits("ladder", seed):
        try:
            ladder = subject.probe(seed, bits, "ladder")
            curve = rungs(subject, ladder, "rtn")
        except LackingError as gap:
            gaps.append(str(gap))
            continue
        found.append((curve.outside != 0, max(curve.excess), bits, ladder))
    if not found:
        raise LackingError(gaps[0] if gaps else "probe ladder")
    return max(found, key=lambda one: one[:3])[3]


def trace(record: Record, name: str) -> list[float]:
    """Return a trace of a record.

    Raises
    ------
    LackingError
        It is not there, or empty.
    """
    found = record.traces.get(name)
    if not found:
        raise LackingError(f"{name} in {record.label}")
    return found


def metric(record: Record, name: str) -> float:
    """Return a metric of a record.

    Raises
    ------
    LackingError
        It is not there.
    """
    if name not in record.metrics:
        raise LackingError(f"{name} in {record.label}")
    return record.metrics[name]

"""The probe `ladder`: the excess over rounding and over noise, as the step size grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qbench.claims.curves import crossing
from qbench.claims.numbers import nats
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
        The excess that counts as nothing, nats; one for both, whatever either curve's standard error is.
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
    """Return where rounding and noise leave the basin: where their excess is the tolerance.

    Raises
    ------
    LackingError
        A curve is missing, or is outside from its first step on, or is not resolved where it leaves.
    """
    curves = {name: rungs(subject, ladder, name) for name in ("rtn", "noise")}
    for name, one in curves.items():
        if one.outside == 0:
            raise LackingError(f"a ladder with finer steps: {name} is outside the basin at its first")
    level = subject.tolerance
    unresolved = [name for name, one in curves.items() if _blurred(one, level)]
    if unresolved:
        raise LackingError(
            f"more evaluation data: where {unresolved[0]} leaves the basin, 3 SE are above {nats(level)}"
        )
    found = {name: crossing(one.step, one.excess, level) for name, one in curves.items()}
    step, factor = trace(ladder, "step"), trace(ladder, "factor")
    return Exits(level, found["rtn"], found["noise"], step[-1], step[0] / factor[0])


def _blurred(curve: Rungs, level: float) -> bool:
    """Return whether the standard error alone puts the threshold above the level where the curve first exceeds that."""
    first = next((place for place, excess in enumerate(curve.excess) if excess > level), None)
    return first is not None and first > 0 and curve.tau[first - 1] > level


def ladder_of(subject: Subject, seed: int) -> Record:
    """Return the ladder of a seed from the most bits, on which rounding and noise begin inside the basin and leave it.

    Where there is none, one that begins inside, and where there is none of these either, any.

    Raises
    ------
    LackingError
        There is no sound ladder.
    """
    gaps, found = [], []
    for bits in subject.bits("ladder", seed):
        try:
            ladder = subject.probe(seed, bits, "ladder")
            curves = [rungs(subject, ladder, name) for name in ("rtn", "noise")]
        except LackingError as gap:
            gaps.append(str(gap))
            continue
        begins = all(one.outside != 0 for one in curves)
        found.append((begins, begins and all(one.outside is not None for one in curves), bits, ladder))
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

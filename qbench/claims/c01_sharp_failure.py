"""C1: rounding fails sharply and monotonically as bits fall."""

from __future__ import annotations

import itertools
import math

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict, each_grid
from qbench.claims.curves import crossing, slope
from qbench.claims.ladders import Rungs, ladder_of, rungs
from qbench.claims.measured import Measured
from qbench.claims.numbers import nats, short
from qbench.claims.subject import LackingError, Subject


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    bits = subject.bits("rtn", seed)
    if len(bits) < limits.BITWIDTHS or not {limits.FINE_BITS, limits.COARSE_BITS} <= set(bits):
        had = ", ".join(map(str, bits)) or "none"
        raise LackingError(
            f"rtn at {limits.BITWIDTHS} bitwidths from {limits.FINE_BITS} to {limits.COARSE_BITS} (has {had})"
        )
    cells = [subject.rounding(seed, width) for width in bits]
    fine, coarse = cells[bits.index(limits.FINE_BITS)], cells[bits.index(limits.COARSE_BITS)]
    curve = rungs(subject, ladder_of(subject, seed), "rtn")
    fall = max(_fall(a, b) for a, b in itertools.pairwise(cells))
    top = min(max(curve.excess), subject.headroom if subject.headroom is not None else math.inf)
    factor, power = _rise(curve, top), _power_law(curve, subject.headroom or top)
    numbers = {"D_8": fine.excess, "D_2": coarse.excess, "fall_in_se": fall}
    numbers |= {} if factor is None else {"rise_factor": factor}
    numbers |= {} if power is None else {"slope": power[0], "residual": power[1]}
    rise = "the ladder does not show 10 and 90 % of the rise" if factor is None else f"10-90 % within {short(factor)} x"
    one = "no slope" if power is None else f"slope {short(power[0])} with residual {short(power[1])}"
    why = (
        f"D {nats(fine.excess)} at 8 bits ({fine.regime}) and {nats(coarse.excess)} at 2 ({coarse.regime}), "
        f"largest fall {short(fall)} SE, {rise}, {one} below saturation"
    )
    sharp = factor is not None and factor <= limits.RISE_FACTOR
    bowl = power is not None and power[0] <= limits.POWER_LAW_SLOPE and power[1] <= limits.POWER_LAW_RESIDUAL
    outcome: Outcome = "inconclusive"
    if fall > limits.NOT_MONOTONE_SE or bowl:
        outcome = "refutes"
    elif fine.inside and coarse.failed and sharp and fall <= limits.MONOTONE_SE:
        outcome = "supports"
    return SeedVerdict(outcome, why, numbers, limits.COARSE_BITS)


def _fall(finer: Measured, coarser: Measured) -> float:
    """Return by how many standard errors the excess falls from one bitwidth to the next below."""
    by, se = finer.excess - coarser.excess, math.hypot(finer.se, coarser.se)
    return max(by, 0.0) / se if se else math.inf if by > 0 else 0.0


def _rise(curve: Rungs, top: float) -> float | None:
    """Return the factor in step size between 10 and 90 % of the rise to `top`."""
    low, high = (crossing(curve.step, curve.excess, share * top) for share in limits.RISE)
    return None if low is None or high is None or top <= 0 else high / low


def _power_law(curve: Rungs, top: float) -> tuple[float, float] | None:
    """Return slope and residual of ln D on ln step where D can be told from 0 and is below saturation."""
    kept = [
        (math.log(step), math.log(excess))
        for step, excess, tau in zip(curve.step, curve.excess, curve.tau, strict=True)
        if tau < excess <= limits.SATURATION * top
    ]
    return slope(*map(list, zip(*kept, strict=True))) if len(kept) >= 4 else None


CLAIM = Claim(
    id="C1",
    title="rounding fails sharply and monotonically as bits fall",
    source="abstract",
    supports="D of rtn does not fall by more than 1 SE from any bitwidth to the next below, is inside at 8 bits and "
    "failed at 2, and on the ladder of step sizes rises from 10 to 90 % of its range within a factor 3",
    refutes="D falls by more than 3 SE somewhere, or is one power law with slope <= 2.3 from tau to half its range",
    needs="rtn at four or more bitwidths from 8 to 2; probe ladder",
    judge=each_grid(_judge),
)

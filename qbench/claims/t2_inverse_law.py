"""T2: on landscapes, the first entry is inversely proportional to the rate."""

from __future__ import annotations

import math

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.curves import slope
from qbench.claims.landscapes import each_landscape, entries
from qbench.claims.numbers import short
from qbench.claims.subject import Subject


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    found = entries(subject, seed)
    if not found:
        return SeedVerdict("not applicable", "no plain training begins outside the basin")
    bits = found[0][2]
    firsts = {way.rate: first for way, first, at in found if at == bits and limits.FIRST_ENTRY <= first < math.inf}
    told = ", ".join(f"{short(rate)}: {short(first)}" for rate, first in firsts.items())
    if len(firsts) < limits.RATES_ENTERED:
        had = f"{len(firsts)} rates ({told or 'none'})"
        why = f"entries after the first steps at {had}, {limits.RATES_ENTERED} are needed"
        return SeedVerdict("not applicable", why, {}, bits)
    law, _ = slope([math.log(rate) for rate in firsts], [math.log(first) for first in firsts.values()])
    off = abs(law + 1)
    outcome: Outcome = "inconclusive"
    if off <= limits.INVERSE_LAW:
        outcome = "supports"
    elif off > limits.INVERSE_LAW_REFUTED:
        outcome = "refutes"
    return SeedVerdict(outcome, f"first entry by rate {told}: slope {short(law)}", {"slope": law}, bits)


CLAIM = Claim(
    id="T2",
    title="first entry is inversely proportional to the rate",
    source="readers",
    supports="log k* falls on log rate with slope -1 within .1, over three or more rates that enter at k* >= 2",
    refutes="the slope is off by more than .3",
    needs="a landscape; ste_qat by plain sgd at three rates with trajectories of every step",
    judge=each_landscape(_judge),
)

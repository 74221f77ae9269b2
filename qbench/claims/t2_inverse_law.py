"""T2: on landscapes, the first entry is inversely proportional to the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.curves import slope
from qbench.claims.landscapes import each_landscape, entries
from qbench.claims.numbers import listed, short
from qbench.claims.subject import Subject


def _judge(subjects: Sequence[Subject], seed: int) -> SeedVerdict:
    grids: dict[tuple[str, int], dict[float, float]] = {}
    for one in entries(subjects, seed):
        if limits.FIRST_ENTRY <= one.first < math.inf:
            grids.setdefault((one.subject.quantizer, one.bits), {})[one.way.rate] = one.first
    laws = {
        grid: slope([math.log(rate) for rate in firsts], [math.log(first) for first in firsts.values()])[0]
        for grid, firsts in grids.items()
        if len(firsts) >= limits.RATES_ENTERED
    }
    if not laws:
        why = f"no grid has entries after the first steps at {limits.RATES_ENTERED} rates or more"
        return SeedVerdict("not applicable", why)
    worst = max(laws, key=lambda grid: abs(laws[grid] + 1))
    off = abs(laws[worst] + 1)
    outcome: Outcome = "inconclusive"
    if off <= limits.INVERSE_LAW:
        outcome = "supports"
    elif off > limits.INVERSE_LAW_REFUTED:
        outcome = "refutes"
    firsts = listed({short(rate): first for rate, first in sorted(grids[worst].items())})
    why = f"slopes on {len(laws)} grids; farthest from -1: {short(laws[worst])}, with first entries by rate {firsts}"
    return SeedVerdict(outcome, why, {"slope": laws[worst], "grids": float(len(laws))}, worst[1])


CLAIM = Claim(
    id="T2",
    title="first entry is inversely proportional to the rate",
    source="readers",
    supports="on every grid log k* falls on log rate with slope -1 within .1, over three or more rates that enter at "
    "k* >= 2",
    refutes="a slope is off by more than .3",
    needs="a landscape; ste_qat by plain sgd at three rates with trajectories of every step",
    judge=each_landscape(_judge),
)

"""C10: the deployed weights re-enter the basin after finitely many steps, about 1 / rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.curves import slope
from qbench.claims.failing import Site, at_exit
from qbench.claims.numbers import short
from qbench.claims.subject import LackingError
from qbench.claims.trajectories import Trajectory, first_entry, plain_trajectories
from qbench.claims.witnesses import witnesses


def _judge(site: Site) -> SeedVerdict:
    ways = plain_trajectories(site.subject, site.seed, site.bits)
    if len(ways) < limits.RATES:
        raise LackingError(f"ste_qat by plain sgd at {limits.RATES} rates at {site.bits} bits (has {len(ways)})")
    entries = {way.rate: first_entry(way.step, way.train, way.tau_train) for way in ways}
    told = ", ".join(f"{short(rate)}: {_steps(entry)}" for rate, entry in entries.items())
    used = {rate: entry for rate, entry in entries.items() if limits.FIRST_ENTRY <= entry < math.inf}
    entered = [entry for entry in entries.values() if entry < math.inf]
    numbers = {"rates_entered": float(len(entered)), "first_entry": min(entries.values())}
    if not entered:
        return _never(site, ways, told, numbers)
    why = f"first entry by rate {told}"
    if len(used) < limits.RATES_ENTERED:
        return site.verdict("inconclusive", f"{why}: too few entries after the first steps for a slope", **numbers)
    found, _ = slope([math.log(rate) for rate in used], [math.log(entry) for entry in used.values()])
    low, high = limits.ENTRY_SLOPE
    outcome: Outcome = "supports" if low <= found <= high else "inconclusive"
    return site.verdict(outcome, f"{why}; slope of log k* on log rate {short(found)}", slope=found, **numbers)


def _never(site: Site, ways: Sequence[Trajectory], told: str, numbers: dict[str, float]) -> SeedVerdict:
    """Judge a seed of which no rate entered: that refutes only where there is a way in and time to find it."""
    why = f"no entry at any rate ({told})"
    try:
        inside = [one for one in witnesses(site, site.subject.probe(site.seed, site.bits, "segments")) if one.inside]
    except LackingError as gap:
        return site.verdict("inconclusive", f"{why}, and a way in is not known: lacks {gap}", **numbers)
    if not inside:
        return site.verdict("inconclusive", f"{why}, and no codeword inside is known either", **numbers)
    steps = {cell.label: cell.options["steps"] for cell in site.subject.arms(site.seed, site.bits, "ste_qat")}
    budget = min(steps[one.label] for one in inside)
    longest = max(way.step[-1] for way in ways)
    if longest < limits.BUDGET_FACTOR * budget:
        short_of = f"{why} in {longest:.0f} steps, fewer than ten times the {budget} in which {inside[0].label} got in"
        return site.verdict("inconclusive", short_of, **numbers)
    return site.verdict("refutes", f"{why} in {longest:.0f} steps, while {inside[0].label} got in", **numbers)


def _steps(entry: float) -> str:
    return "never" if math.isinf(entry) else f"{short(entry)} steps"


CLAIM = Claim(
    id="C10",
    title="the deployed weights re-enter the basin in finite time, inversely to the rate",
    source="abstract",
    supports="by plain gradient descent at four or more rates the deployed loss on training batches reaches D <= tau "
    "at three or more, and log k* falls on log rate with a slope in [-1.3, -.7] over entries at k* >= 2",
    refutes="no rate gets in within ten times the steps in which another optimizer found a codeword inside",
    needs="rtn; ste_qat by plain sgd (momentum 0, constant rate, no clipping) at four rates with trajectories; for "
    "refutation probe segments; at the most bits at which rounding is outside",
    judge=at_exit(_judge),
)

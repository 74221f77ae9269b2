"""C11: recovery needs a quantizer whose error is small against the basin's width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Judgement, Outcome, SeedVerdict, combine, without_gaps
from qbench.claims.lattices import Family, Lattice, families
from qbench.claims.measured import Measured
from qbench.claims.numbers import nats, short
from qbench.claims.pairs import budget
from qbench.claims.subject import LackingError, Subject
from qbench.claims.trajectories import first_entry, has_trajectory, trajectory


@dataclass(frozen=True)
class _Recovery:
    step: float
    entry: float
    late_excess: float
    late_se: float
    late_inside: float


def _judge(family: Family, seed: int) -> SeedVerdict:
    past = [one for one in family.of_seed(seed) if one.rounding(seed).failed]
    if not past:
        return SeedVerdict("not applicable", "rounding fails on no lattice")
    if len(past) < limits.LATTICES:
        raise LackingError(f"{limits.LATTICES} step sizes at which rounding fails (has {len(past)})")
    found = _recoveries(past, seed)
    entered = [one.entry < math.inf for one in found]
    later = all(b.entry >= a.entry for a, b in itertools.pairwise(found))
    worse = all(
        b.late_excess >= a.late_excess - limits.MONOTONE_SE * math.hypot(a.late_se, b.late_se)
        for a, b in itertools.pairwise(found)
    )
    outcome: Outcome = "inconclusive"
    if later and worse and entered[0] and not entered[-1]:
        outcome = "supports"
    elif all(entered) and all(one.late_inside >= limits.STAYS_INSIDE for one in found):
        outcome = "refutes"
    told = "; ".join(
        f"step {short(one.step)}: k* {'never' if math.isinf(one.entry) else short(one.entry)}, late D "
        f"{nats(one.late_excess)}, {one.late_inside:.0%} of late moments inside"
        for one in found
    )
    numbers = {f"late_D_{short(one.step)}": one.late_excess for one in found}
    numbers |= {f"late_inside_{short(one.step)}": one.late_inside for one in found}
    numbers |= {f"entry_{short(one.step)}": one.entry for one in found}
    return SeedVerdict(outcome, told, numbers, past[0].bits)


def _recoveries(past: Sequence[Lattice], seed: int) -> list[_Recovery]:
    """Return what the same training does on each lattice: of the trainings run on all, the one that ends best."""
    runs = [
        {budget(cell): cell for cell in one.subject.arms(seed, one.bits, "ste_qat") if has_trajectory(cell)}
        for one in past
    ]
    common = set.intersection(*map(set, runs))
    if not common:
        raise LackingError("ste_qat with a trajectory, by the same budget and rate, on every lattice past failure")
    best = min(common, key=lambda one: (sum(run[one].excess for run in runs), str(one)))
    return [_recovery(one, run[best]) for one, run in zip(past, runs, strict=True)]


def _recovery(lattice: Lattice, cell: Measured) -> _Recovery:
    way = trajectory(lattice.subject, cell)
    late = way.late
    return _Recovery(
        lattice.step,
        first_entry(way.step, way.train, way.tau_train),
        sum(way.deployed[one] for one in late) / len(late),
        max(way.deployed_se[one] for one in late),
        sum(way.deployed[one] <= way.tau[one] for one in late) / len(late),
    )


def _all(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
    judged = []
    for family in families(subjects):
        seeds = {seed: without_gaps(lambda f=family, s=seed: _judge(f, s)) for seed in family.seeds}  # type: ignore[misc]
        judged.append(combine(claim, family.model, family.name, seeds, family.seeds_needed))
    return judged


CLAIM = Claim(
    id="C11",
    title="recovery needs a quantizer whose error is small against the basin",
    source="abstract",
    supports="over three or more lattices past rounding's failure, coarser and coarser, the first entry of the same "
    "QAT comes later and its late loss is higher, and beyond some step it no longer enters",
    refutes="it enters on all of them and is inside for at least .9 of the late moments on all",
    needs="rtn and ste_qat with trajectories on quantizer lattice at three steps past failure",
    judge=_all,
)

"""T3: on landscapes of many dimensions, rounding leaves the basin at the predicted step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Judgement, Verdict
from qbench.claims.curves import crossing
from qbench.claims.ladders import metric
from qbench.claims.landscapes import known
from qbench.claims.lattices import Family, families
from qbench.claims.numbers import listed, short
from qbench.claims.spread import Spread, spread
from qbench.claims.subject import LackingError, Subject


def _judge(claim: Claim, family: Family) -> Judgement:
    """Judge all seeds together: the formula is of the mean square, from which a single seed's exit is some way off."""
    facts, seeds = family.facts, family.seeds
    numbers: dict[str, Spread] = {}

    def said(verdict: Verdict, why: str, *lacks: str) -> Judgement:
        return Judgement(claim.id, claim.title, family.model, family.name, verdict, (), numbers, {}, why, lacks)

    try:
        dimension = known(facts, "dimension")
        if dimension < limits.EXIT_DIMENSIONS or "exit_step" not in facts["valley"]:
            concentrated = f"from {limits.EXIT_DIMENSIONS} on they do"
            return said("not applicable", f"Errors do not concentrate in {dimension:.0f} dimensions; {concentrated}.")
        rho, predicted = known(facts, "rho"), known(facts, "exit_step")
        steps = [one.step for one in family.lattices]
        away = {
            seed: [metric(one.rounding(seed).record, "valley/normal_distance") for one in family.lattices]
            for seed in seeds
        }
        mean = [math.sqrt(sum(z * z for z in at) / len(at)) for at in zip(*away.values(), strict=True)]
        left = crossing(steps, mean, rho)
        if left is None:
            raise LackingError(f"rtn on lattices on both sides of a step of {short(predicted)}")
    except LackingError as gap:
        return said("not judged", f"Lacks {gap}.", str(gap))
    off = left / predicted - 1
    single = {seed: step for seed, found in away.items() if (step := crossing(steps, found, rho)) is not None}
    numbers |= {name: Spread(value, None, None, {}) for name, value in (("exit_step", left), ("predicted", predicted))}
    numbers |= {"exit_step_of_a_seed": spread(single)} if single else {}
    distances = listed({f"at {short(step)}": distance for step, distance in zip(steps, mean, strict=True)})
    why = (
        f"Over {len(seeds)} seeds |z_F| of rounding (root mean square {distances}; rho {short(rho)}) leaves the basin "
        f"at a step of {short(left)}, predicted {short(predicted)} ({off:+.1%})."
    )
    if len(seeds) < family.seeds_needed:
        return said("inconclusive", f"Too few seeds for a verdict, {family.seeds_needed} are needed. {why}")
    if abs(off) <= limits.EXIT_ERROR:
        return said("supported", why)
    return said("refuted" if abs(off) > limits.EXIT_ERROR_REFUTED else "inconclusive", why)


def _all(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
    return [_judge(claim, family) for family in families(subjects) if "valley" in family.facts]


CLAIM = Claim(
    id="T3",
    title="rounding leaves the basin at the predicted step",
    source="ours",
    supports="|z_F| of rtn, its root mean square over three or more seeds, crosses rho within 5 % of "
    "sqrt(12 (rho^2 - r0^2) / m)",
    refutes="it is off by more than 10 %",
    needs="a landscape of 256 dimensions or more; rtn on quantizer lattice at steps on both sides",
    judge=_all,
)

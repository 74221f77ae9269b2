"""T3: on landscapes of many dimensions, rounding leaves the basin at the predicted step."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Judgement, Outcome, SeedVerdict, combine, without_gaps
from qbench.claims.curves import crossing
from qbench.claims.ladders import metric
from qbench.claims.landscapes import known
from qbench.claims.lattices import Family, families
from qbench.claims.numbers import short
from qbench.claims.subject import LackingError, Subject


def _judge(family: Family, seed: int) -> SeedVerdict:
    facts = family.facts
    dimension = known(facts, "dimension")
    if dimension < limits.EXIT_DIMENSIONS or "exit_step" not in facts["valley"]:
        why = f"errors do not concentrate in {dimension:.0f} dimensions (from {limits.EXIT_DIMENSIONS} on they do)"
        return SeedVerdict("not applicable", why)
    rho, predicted = known(facts, "rho"), known(facts, "exit_step")
    lattices = family.of_seed(seed)
    away = [metric(one.rounding(seed).record, "valley/normal_distance") for one in lattices]
    steps = [one.step for one in lattices]
    left = crossing(steps, away, rho)
    if left is None:
        raise LackingError(f"rtn on lattices on both sides of {short(predicted)} (|z_F| {', '.join(map(short, away))})")
    off = left / predicted - 1
    outcome: Outcome = "inconclusive"
    if abs(off) <= limits.EXIT_ERROR:
        outcome = "supports"
    elif abs(off) > limits.EXIT_ERROR_REFUTED:
        outcome = "refutes"
    why = f"rounding leaves the basin at a step of {short(left)}, predicted {short(predicted)} ({off:+.1%})"
    return SeedVerdict(outcome, why, {"exit_step": left, "predicted": predicted, "off": off}, lattices[0].bits)


def _all(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
    judged = []
    for family in families(subjects):
        if "valley" in family.facts:
            seeds = {seed: without_gaps(lambda f=family, s=seed: _judge(f, s)) for seed in family.seeds}  # type: ignore[misc]
            judged.append(combine(claim, family.model, family.name, seeds, family.seeds_needed))
    return judged


CLAIM = Claim(
    id="T3",
    title="rounding leaves the basin at the predicted step",
    source="ours",
    supports="|z_F| of rtn crosses rho within 5 % of sqrt(12 (rho^2 - r0^2) / m)",
    refutes="it is off by more than 10 %",
    needs="a landscape of 256 dimensions or more; rtn on quantizer lattice at steps on both sides",
    judge=_all,
)

"""T1: on landscapes, the first entry is no later than the theorem's bound."""

from __future__ import annotations

import math

from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.landscapes import each_landscape, entries, known
from qbench.claims.numbers import short
from qbench.claims.subject import Subject
from qbench.claims.trajectories import Trajectory, landscape


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    bounds = [(_bound(subject, way, first), first, way, bits) for way, first, bits in entries(subject, seed)]
    promised = [one for one in bounds if one[0] < math.inf]
    if not promised:
        why = "no training begins outside the basin with an error and a rate for which the theorem promises anything"
        return SeedVerdict("not applicable", why, {"trainings": float(len(bounds))})
    # A training that ended before the bound without getting in says nothing.
    told = [one for one in promised if one[1] < math.inf or one[2].step[-1] >= one[0]]
    late = [one for one in told if one[1] > one[0]]
    worst = max((first / bound for bound, first, _, _ in told if first < math.inf), default=math.nan)
    outcome: Outcome = "refutes" if late else "supports" if told else "inconclusive"
    listed = ", ".join(f"{short(first)} <= {short(bound)}" for bound, first, _, _ in told if first <= bound)
    broken = ", ".join(f"rate {short(way.rate)}: {short(first)} > {short(bound)}" for bound, first, way, _ in late)
    why = f"first entries and their bounds: {listed or 'none'}" + (
        f"; later than the bound: {broken}" if broken else ""
    )
    numbers = {"trainings": float(len(told)), "largest_share_of_bound": worst}
    return SeedVerdict(outcome, why, numbers, promised[0][3])


def _bound(subject: Subject, way: Trajectory, first: float) -> float:
    """Return ``|z_F(w_0)|^2 / (eta [2 G (rho - e) - eta G'^2])``; infinite where the bracket is not positive.

    e and G' are the largest error ``|U_F^T (q_k - w_k)|`` and gradient seen until the entry.
    """
    until = [index for index, step in enumerate(way.step) if step <= first]
    error = max(landscape(way.cell, "quantization_error")[index] for index in until)
    gradient = max(landscape(way.cell, "gradient_norm")[index] for index in until)
    start = landscape(way.cell, "latent_distance")[0]
    rho, wall = known(subject.facts, "rho"), known(subject.facts, "wall")
    fall = way.rate * (2 * wall * (rho - error) - way.rate * gradient**2)
    return start**2 / fall if fall > 0 else math.inf


CLAIM = Claim(
    id="T1",
    title="first entry is no later than the theorem's bound",
    source="readers",
    supports="every plain training that begins outside the basin, with an error below rho and a rate for which the "
    "bound |z_F|^2 / (rate (2 G (rho - e) - rate G'^2)) exists, is inside by then",
    refutes="one is not",
    needs="a landscape; ste_qat by plain sgd with trajectories",
    judge=each_landscape(_judge),
)

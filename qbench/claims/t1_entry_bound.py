"""T1: on landscapes, the first entry is no later than the theorem's bound."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.landscapes import Entry, each_landscape, entries, entry_bound, known
from qbench.claims.numbers import short
from qbench.claims.subject import Subject
from qbench.claims.trajectories import landscape


def _judge(subjects: Sequence[Subject], seed: int) -> SeedVerdict:
    bounds = [(_bound(entry), entry) for entry in entries(subjects, seed)]
    promised = [one for one in bounds if one[0] < math.inf]
    if not promised:
        why = "no training begins outside the basin with an error and a rate for which the theorem promises anything"
        return SeedVerdict("not applicable", why)
    # A training that ended before the bound without getting in says nothing.
    told = [(bound, one) for bound, one in promised if one.first < math.inf or one.way.step[-1] >= bound]
    late = [(bound, one) for bound, one in told if one.first > bound]
    worst = max((one.first / bound for bound, one in told if one.first < math.inf), default=math.nan)
    outcome: Outcome = "refutes" if late else "supports" if told else "inconclusive"
    kept = ", ".join(f"{short(one.first)} <= {short(bound)}" for bound, one in told if one.first <= bound)
    why = f"first entries and their bounds: {kept or 'none'}"
    for bound, one in late:
        why += f"; at rate {short(one.way.rate)} on {one.subject.quantizer} {short(one.first)} > {short(bound)}"
    numbers = {"trainings": float(len(told)), "largest_share_of_bound": worst}
    return SeedVerdict(outcome, why, numbers, promised[0][1].bits)


def _bound(entry: Entry) -> float:
    """Return ``|z_F(w_0)|^2 / (eta [2 G (rho - e) - eta G'^2])``; infinite where the bracket is not positive.

    e and G' are the largest error ``|U_F^T (q_k - w_k)|`` and gradient seen until the entry.
    """
    way, facts = entry.way, entry.subject.facts
    until = [index for index, step in enumerate(way.step) if step <= entry.first]
    error = max(landscape(way.cell, "quantization_error")[index] for index in until)
    gradient = max(landscape(way.cell, "gradient_norm")[index] for index in until)
    start = landscape(way.cell, "latent_distance")[0]
    return entry_bound(start, way.rate, {name: known(facts, name) for name in ("rho", "wall")}, error, gradient)


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

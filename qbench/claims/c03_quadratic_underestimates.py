"""C3: a flat basin with a wall, not a bowl: the local quadratic underestimates the cost at failing bits."""

from __future__ import annotations

import math

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.failing import Site, at_failure
from qbench.claims.ladders import metric
from qbench.claims.numbers import nats, times
from qbench.claims.points import point_of
from qbench.claims.subject import LackingError
from qbench.store.record import Record


def _judge(site: Site) -> SeedVerdict:
    subject, seed = site.subject, site.seed
    fail, excess, predicted = _underestimate(subject.probe(seed, site.bits, "curvature"))
    inside_bits = _inside_bits(site)
    inside, excess_inside, predicted_inside = _underestimate(subject.probe(seed, inside_bits, "curvature"))
    why = (
        f"on the samples of the expansion, at {site.bits} bits D = {nats(excess)}, the expansion at w_fp says "
        f"{nats(predicted)} (U = {times(fail)}), inside, at {inside_bits} bits, {nats(excess_inside)} against "
        f"{nats(predicted_inside)} (U = {times(inside)})"
    )
    if subject.statistics_move:
        void = f"batch norms are estimated again at every point, and derivatives keep those of w_fp; {why}"
        return site.verdict("not applicable", void, U_fail=fail, U_inside=inside, predicted=predicted)
    outcome: Outcome = "inconclusive"
    if not (predicted > 0 and predicted_inside > 0):
        return site.verdict(outcome, f"{why}: an expansion that says no rise has no ratio", predicted=predicted)
    if fail < limits.UNDERESTIMATE_REFUTED:
        outcome = "refutes"
    elif fail > limits.UNDERESTIMATE and fail > limits.UNDERESTIMATE_OF_INSIDE * inside:
        outcome = "supports"
    return site.verdict(outcome, why, U_fail=fail, U_inside=inside, predicted=predicted)


def _inside_bits(site: Site) -> int:
    """Return the fewest bits inside at which curvature was measured: there D is largest, and best resolved."""
    subject, seed = site.subject, site.seed
    measured = set(subject.bits("curvature", seed))
    found = [width for width in subject.bits("rtn", seed) if width in measured and subject.rounding(seed, width).inside]
    if not found:
        raise LackingError("probe curvature at bits where rounding is inside")
    return found[-1]


def _underestimate(probe: Record) -> tuple[float, float, float]:
    """Return U, D and what the expansion says of rounding, all on the samples that the derivatives are of.

    U is NaN, which is above and below nothing, where the expansion says that there is no rise.
    """
    point = point_of(probe, "rtn")
    excess = metric(probe, f"{point}/subset_excess")
    predicted = metric(probe, f"{point}/linear") + metric(probe, f"{point}/hessian")
    return (excess / predicted if predicted > 0 else math.nan), excess, predicted


CLAIM = Claim(
    id="C3",
    title="the second-order expansion at w_fp underestimates the cost of failing bits",
    source="readers",
    supports="U = D / (g e + e H e / 2) of rtn is above 3 at the first failure, and above twice the U inside the basin",
    refutes="U < 1.5 at failing bits",
    needs="rtn; probe curvature at failing bits and at bits inside",
    judge=at_failure(_judge),
)

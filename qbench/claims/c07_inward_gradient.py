"""C7: gradients at the deployed point lead inward, those at the latent weights do not."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.failing import Site, at_failure
from qbench.claims.ladders import metric
from qbench.claims.numbers import short


def _judge(site: Site) -> SeedVerdict:
    probe = site.subject.probe(site.seed, site.bits, "inward")
    fine = site.subject.probe(site.seed, limits.FINE_BITS, "inward")
    deployed, latent = metric(probe, "cosine/deployed"), metric(probe, "cosine/latent")
    high, ratio = metric(probe, "null/high"), metric(probe, "norm_ratio")
    at_fine, fine_high = metric(fine, "cosine/deployed"), metric(fine, "null/high")
    weights = site.subject.facts.get("parameters", limits.MANY_WEIGHTS)
    if weights < limits.MANY_WEIGHTS:
        why = f"of {weights} weights, random sign flips are no null (from {limits.MANY_WEIGHTS} on they are)"
        return site.verdict("not applicable", why, c_q=deployed, c_w=latent)
    outcome: Outcome = "inconclusive"
    if deployed <= 0 or latent >= deployed:
        outcome = "refutes"
    elif (
        deployed > high
        and deployed > limits.INWARD_OF_LATENT * abs(latent)
        and ratio > limits.NORM_RATIO
        and abs(at_fine) <= fine_high
    ):
        outcome = "supports"
    why = (
        f"the cosine with the way to w_fp is {short(deployed)} at the deployed point (99 % of random signs below "
        f"{short(high)}, z {short(metric(probe, 'z'))}) and {short(latent)} at the latent, whose gradient is "
        f"{short(ratio)} times shorter; at {limits.FINE_BITS} bits {short(at_fine)} (99 %: {short(fine_high)})"
    )
    numbers = {"c_q": deployed, "c_w": latent, "null_high": high, "norm_ratio": ratio, "c_q_8": at_fine}
    return site.verdict(outcome, why, **numbers)


CLAIM = Claim(
    id="C7",
    title="gradients at the deployed point lead inward, latent ones do not",
    source="abstract",
    supports="at failing bits cos(-grad L(q), w_fp - q) is above 99 % of random sign flips and above twice |cos| at "
    "the latent weights, and the gradient over 5 times as long; at 8 bits the cosine is within what sign flips give",
    refutes="at failing bits that cosine is not positive, or not above the one at the latent weights",
    needs="rtn; probe inward at failing bits and at 8 bits",
    judge=at_failure(_judge),
)

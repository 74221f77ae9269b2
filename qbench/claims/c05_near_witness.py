"""C5: a low-loss codeword exists near, on the same grid."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.failing import Site, at_failure
from qbench.claims.numbers import nats, short
from qbench.claims.witnesses import first_point, witnesses


def _judge(site: Site) -> SeedVerdict:
    probe = site.subject.probe(site.seed, site.bits, "segments")
    found = witnesses(site, probe)
    inside = [one for one in found if one.inside]
    best = min(inside, key=lambda one: one.ratio) if inside else min(found, key=lambda one: one.excess)
    outcome: Outcome = "inconclusive"
    if inside and best.ratio <= limits.WITNESS_DISTANCE:
        outcome = "supports"
    elif inside and best.ratio > limits.WITNESS_DISTANCE_REFUTED:
        outcome = "refutes"
    what = "the nearest of D <= tau is" if inside else "none of D <= tau was found, which is no proof; the best is"
    why = (
        f"of {len(found)} codewords that QAT found, {what} {best.label}: D = {nats(best.excess)} "
        f"(tau {nats(best.tau)}) at {short(best.ratio)} times the distance of {first_point(probe)}, "
        f"whose D is {nats(site.rounded.excess)}"
    )
    return site.verdict(outcome, why, D_witness=best.excess, R=best.ratio)


CLAIM = Claim(
    id="C5",
    title="a low-loss codeword exists near w_fp on the same grid",
    source="abstract",
    supports="a codeword of QAT on the frozen grid has D <= tau, at most twice as far from w_fp as rounding",
    refutes="every one with D <= tau is more than four times as far (none at all: inconclusive)",
    needs="rtn, ste_qat on the frozen grid; probe segments between them at failing bits",
    judge=at_failure(_judge),
)

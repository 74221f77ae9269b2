"""C9b: the displacement of the gradient recovers, not the lattice."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.failing import Site, at_failure
from qbench.claims.numbers import short
from qbench.claims.pairs import best_of_common, gain

_ARMS = ("ste_qat", "noise_grad", "latent_grad")


def _judge(site: Site) -> SeedVerdict:
    best = best_of_common(site.subject, site.seed, site.bits, _ARMS)
    qat, noise, latent = (gain(best[name], site.rounded) for name in _ARMS)
    near = limits.NOISE_NEAR_LATENT * qat
    recovers = best["ste_qat"].excess < site.rounded.excess - site.rounded.tau
    outcome: Outcome = "inconclusive"
    if recovers and noise <= latent + near:
        outcome = "refutes"
    elif recovers and noise >= limits.NOISE_RECOVERY * qat:
        outcome = "supports"
    why = f"best of the common rates: G {short(qat)} at Q(w), {short(noise)} at w + u, {short(latent)} at w"
    return site.verdict(outcome, why, G_qat=qat, G_noise=noise, G_latent=latent)


CLAIM = Claim(
    id="C9b",
    title="it is the displacement that recovers, not the lattice",
    source="readers",
    supports="the gradient at w + u, u uniform over a cell, recovers at least half of what QAT does, and more than the "
    "gradient at w by over a tenth of it",
    refutes="it recovers no more than the gradient at w, within a tenth of what QAT does: then the lattice matters",
    needs="rtn, ste_qat on the frozen grid, noise_grad and latent_grad with common budgets and rates, at failing bits",
    judge=at_failure(_judge),
)

"""C9: where the gradient is taken is what recovers: at the latent weights it does not."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.failing import Site, at_failure
from qbench.claims.numbers import nats, short
from qbench.claims.pairs import best_of_common, budgets_in_common, gain
from qbench.claims.subject import LackingError

_ARMS = ("ste_qat", "latent_grad")


def _judge(site: Site) -> SeedVerdict:
    best = best_of_common(site.subject, site.seed, site.bits, _ARMS)
    qat, latent = (gain(best[name], site.rounded) for name in _ARMS)
    outcome: Outcome = "inconclusive"
    # Where QAT recovers nothing there is nothing to tell a cause of.
    recovers = best["ste_qat"].excess < site.rounded.excess - site.rounded.tau
    if qat > limits.RECOVERY and latent < limits.LATENT_RECOVERY * qat:
        outcome = "supports"
    elif recovers and latent >= limits.LATENT_RECOVERY_REFUTED * qat:
        outcome = "refutes"
    rates = budgets_in_common(site.subject, site.seed, site.bits, _ARMS)
    why = (
        f"best of {rates} common budgets and rates: gradient at the deployed weights D = "
        f"{nats(best['ste_qat'].excess)} (G {short(qat)}), at the latent {nats(best['latent_grad'].excess)} "
        f"(G {short(latent)})"
    )
    numbers = {"G_qat": qat, "G_latent": latent}
    try:
        control = best_of_common(site.subject, site.seed, site.bits, ("ste_qat", "random_grad"))["random_grad"]
    except LackingError:
        return site.verdict(outcome, why, **numbers)
    numbers["G_random"] = gain(control, site.rounded)
    why += f", random of the same norm G {short(numbers['G_random'])}"
    if outcome == "supports" and numbers["G_random"] >= limits.LATENT_RECOVERY * qat:
        return site.verdict("inconclusive", f"{why}: moving anywhere recovers too", **numbers)
    return site.verdict(outcome, why, **numbers)


CLAIM = Claim(
    id="C9",
    title="the same training with the gradient at the latent weights does not recover",
    source="readers",
    supports="with the same steps, data, optimizer and rates, the best of each, QAT recovers more than half of "
    "rounding's excess and the gradient at the latent weights less than a quarter of what QAT does, and so does "
    "a random direction where it was run",
    refutes="the gradient at the latent weights recovers at least .8 of what QAT does",
    needs="rtn, ste_qat on the frozen grid and latent_grad with the same budgets and rates, at failing bits",
    judge=at_failure(_judge),
)

"""T4: on landscapes, the gradient at the latent weights leaves the deployed ones where they are."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.landscapes import each_landscape
from qbench.claims.numbers import listed, nats
from qbench.claims.pairs import gain
from qbench.claims.subject import LackingError, Subject


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    failing = subject.failing(seed)
    if not failing:
        lowest = subject.bits("rtn", seed)[-1]
        rounded = subject.rounding(seed, lowest)
        why = f"rounding does not fail: D = {nats(rounded.excess)} is {rounded.regime}"
        return SeedVerdict("not applicable", why, {"D_rtn": rounded.excess}, lowest)
    bits = failing[0]
    rounded = subject.rounding(seed, bits)
    arms = [one for one in subject.arms(seed, bits, "latent_grad") if one.options.get("learning_rate") != 0]
    if not arms:
        raise LackingError(f"latent_grad with a rate at {bits} bits")
    gains = {one.label: gain(one, rounded) for one in arms}
    most = max(gains.values(), key=abs)
    outcome: Outcome = "inconclusive"
    if abs(most) <= limits.LATENT_UNMOVED:
        outcome = "supports"
    elif most > limits.LATENT_MOVED:
        outcome = "refutes"
    why = f"of rounding's D = {nats(rounded.excess)} the gradient at the latent recovers {listed(gains)}"
    return SeedVerdict(outcome, why, {"D_rtn": rounded.excess, "G_latent": most}, bits)


CLAIM = Claim(
    id="T4",
    title="the gradient at the latent weights leaves the deployed ones where they are",
    source="ours",
    supports="every training with it changes the deployed loss by at most .01 of rounding's excess",
    refutes="one recovers more than .1 of it",
    needs="a landscape on which rtn fails; latent_grad",
    judge=each_landscape(_judge),
)

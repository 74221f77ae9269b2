"""T4: on landscapes, the gradient at the latent weights leaves the deployed ones where they are."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.landscapes import each_landscape
from qbench.claims.numbers import short
from qbench.claims.pairs import gain
from qbench.claims.subject import LackingError, Subject


def _judge(subjects: Sequence[Subject], seed: int) -> SeedVerdict:
    gains: list[float] = []
    gaps: list[str] = []
    failures = 0
    for subject in subjects:
        for bits in subject.failing(seed):
            failures += 1
            try:
                arms = subject.arms(seed, bits, "latent_grad")
            except LackingError as gap:
                gaps.append(f"{gap} on {subject.quantizer}")
                continue
            rounded = subject.rounding(seed, bits)
            gains += [gain(one, rounded) for one in arms if one.options.get("learning_rate") != 0]
    if not failures:
        return SeedVerdict("not applicable", "rounding fails on no grid")
    if not gains:
        raise LackingError(gaps[0] if gaps else "latent_grad with a rate")
    most = max(gains, key=abs)
    outcome: Outcome = "inconclusive"
    if all(abs(one) <= limits.LATENT_UNMOVED for one in gains):
        outcome = "supports"
    elif max(gains) > limits.LATENT_MOVED:
        outcome = "refutes"
    why = f"of rounding's excess {len(gains)} trainings on {failures} failing grids recover at most {short(most)}"
    return SeedVerdict(outcome, why, {"largest_G_latent": most, "trainings": float(len(gains))}, None)


CLAIM = Claim(
    id="T4",
    title="the gradient at the latent weights leaves the deployed ones where they are",
    source="ours",
    supports="every training with it, on every grid on which rounding fails, changes the deployed loss by at most .01 "
    "of rounding's excess",
    refutes="one recovers more than .1 of it",
    needs="a landscape on which rtn fails; latent_grad",
    judge=each_landscape(_judge),
)

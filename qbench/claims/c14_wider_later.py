"""C14: the wider the basin, the later rounding fails: across checkpoints of one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Judgement, Verdict
from qbench.claims.curves import rank_correlation
from qbench.claims.ladders import exits
from qbench.claims.numbers import short
from qbench.claims.spread import Spread
from qbench.claims.subject import LackingError, Subject


@dataclass(frozen=True)
class _Checkpoint:
    name: str
    noise: float
    rtn: float
    unit: float


def _all(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
    groups: dict[tuple[str, str], list[Subject]] = {}
    for subject in subjects:
        groups.setdefault((subject.model.partition("[")[0], subject.quantizer), []).append(subject)
    return [_judge(claim, model, quantizer, ours) for (model, quantizer), ours in sorted(groups.items())]


def _judge(claim: Claim, model: str, quantizer: str, subjects: Sequence[Subject]) -> Judgement:
    found, gaps = _checkpoints(subjects)
    names = ", ".join(f"{one.name} {short(one.noise)}/{short(one.rtn)}" for one in found)
    if len(found) < limits.CHECKPOINTS:
        lacks = (f"{limits.CHECKPOINTS} checkpoints of {model} whose ladders leave the basin (has {len(found)})", *gaps)
        why = f"Lacks {lacks[0]}."
        return Judgement(claim.id, claim.title, model, quantizer, "not judged", why=why, lacks=lacks)
    # Weights of another scale move both exits alike: in units of the checkpoint's own grid that is gone.
    steps = rank_correlation([one.noise for one in found], [one.rtn for one in found])
    units = rank_correlation([one.noise / one.unit for one in found], [one.rtn / one.unit for one in found])
    verdict: Verdict = "inconclusive"
    if min(steps, units) >= limits.TOGETHER:
        verdict = "supported"
    elif max(steps, units) <= limits.APART:
        verdict = "refuted"
    why = (
        f"Over {len(found)} checkpoints the rank correlation of the steps at which noise and rounding leave the basin "
        f"is {short(steps)} in units of weights and {short(units)} in steps of the grid (noise/rtn: {names})."
    )
    numbers = {
        "rank_correlation": Spread(steps, None, None, {}),
        "rank_correlation_in_steps": Spread(units, None, None, {}),
        "checkpoints": Spread(float(len(found)), None, None, {}),
    }
    return Judgement(claim.id, claim.title, model, quantizer, verdict, (), numbers, {}, why, tuple(gaps))


def _checkpoints(subjects: Sequence[Subject]) -> tuple[list[_Checkpoint], list[str]]:
    """Return the checkpoints with ladders at the bits at which most have one, and what others lack."""
    by_bits: dict[int, list[_Checkpoint]] = {}
    gaps: Counter[str] = Counter()
    for subject in subjects:
        for seed in subject.seeds:
            for bits in subject.bits("ladder", seed):
                try:
                    exit_ = exits(subject, subject.probe(seed, bits, "ladder"))
                    if exit_.noise is None or exit_.rtn is None:
                        raise LackingError(f"a longer ladder of {subject.model}, seed {seed}")
                except LackingError as gap:
                    gaps[str(gap)] += 1
                    continue
                name = f"{subject.model}/s{seed}"
                by_bits.setdefault(bits, []).append(_Checkpoint(name, exit_.noise, exit_.rtn, exit_.first_step))
    if not by_bits:
        return [], sorted(gaps)
    most = max(by_bits, key=lambda bits: (len(by_bits[bits]), bits))
    return sorted(by_bits[most], key=lambda one: one.name), sorted(gaps)


CLAIM = Claim(
    id="C14",
    title="a wider basin fails later",
    source="abstract",
    supports="over five or more checkpoints of one model (seeds, lengths or phases of training) the steps at which "
    "noise and rounding leave the basin have a rank correlation of at least .8, in units of the weights and of the "
    "grid",
    refutes="that correlation is not positive in either unit",
    needs="probe ladder at five checkpoints",
    judge=_all,
)

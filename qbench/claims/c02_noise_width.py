"""C2: the width of the basin, measured without rounding, predicts where rounding leaves it."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict, each_grid
from qbench.claims.ladders import exits, ladder_of
from qbench.claims.numbers import nats, short
from qbench.claims.subject import LackingError, Subject


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    ladder = ladder_of(subject, seed)
    found = exits(subject, ladder)
    bits = int(ladder.axes["bits"] or 0)
    if found.rtn is None and found.noise is None:
        why = f"neither rounding nor noise leaves the basin up to the ladder's last step, {short(found.last)}"
        return SeedVerdict("not applicable", why, {}, bits)
    if found.rtn is None or found.noise is None:
        return _one_sided(found.rtn, found.noise, found.last, bits)
    ratio = found.noise / found.rtn
    low, high = limits.NOISE_RATIO
    least, most = limits.NOISE_RATIO_REFUTED
    outcome: Outcome = "supports" if low <= ratio <= high else "inconclusive" if least <= ratio <= most else "refutes"
    why = (
        f"noise leaves the basin (D = {nats(found.level)}) at a step of {short(found.noise)}, rounding at "
        f"{short(found.rtn)}: ratio {short(ratio)}"
    )
    return SeedVerdict(outcome, why, {"ratio": ratio, "step_noise": found.noise, "step_rtn": found.rtn}, bits)


def _one_sided(rtn: float | None, noise: float | None, last: float, bits: int) -> SeedVerdict:
    """Judge a ladder on which one of the two never leaves: the ratio is known from one side."""
    least, most = limits.NOISE_RATIO_REFUTED
    if rtn is not None and last / rtn > most:
        why = f"rounding leaves the basin at a step of {short(rtn)}, noise not up to {short(last)}"
        return SeedVerdict("refutes", why, {"step_rtn": rtn}, bits)
    if noise is not None and noise / last < least:
        why = f"noise leaves the basin at a step of {short(noise)}, rounding not up to {short(last)}"
        return SeedVerdict("refutes", why, {"step_noise": noise}, bits)
    raise LackingError("a longer ladder: one of rounding and noise is still inside at its end")


CLAIM = Claim(
    id="C2",
    title="the basin's width, measured by noise alone, predicts where rounding leaves it",
    source="abstract",
    supports="the step size at which uniform noise of one step has D = tolerance is within a factor 3/2 of rounding's",
    refutes="it is off by more than a factor 2",
    needs="probe ladder, from inside the basin to outside",
    judge=each_grid(_judge),
)

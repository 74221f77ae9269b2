"""C13: second-order rounding pays in distance, and in flat directions."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict, each_grid
from qbench.claims.ladders import metric
from qbench.claims.numbers import short
from qbench.claims.points import point_of
from qbench.claims.subject import LackingError, Subject

_METHODS = ("gptq", "adaround")


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    bits = subject.bits("curvature", seed)
    if not bits:
        raise LackingError("probe curvature")
    pays, equal, told = True, True, []
    numbers: dict[str, float] = {}
    low, high = limits.SECOND_ORDER_RMS
    for width in bits:
        probe = subject.probe(seed, width, "curvature")
        rms, share = (
            {name: metric(probe, f"{point_of(probe, name)}/{what}") for name in ("rtn", *_METHODS)}
            for what in ("step_rms", "top_share")
        )
        if metric(probe, "null/top_share") >= limits.TOP_OF_ALL:
            return SeedVerdict("not applicable", "the steepest directions are half of all, or more", {}, width)
        for name in _METHODS:
            subject.arms(seed, width, name)  # the point has to be a sound cell of the method
            pays &= low <= rms[name] <= high and share[name] < share["rtn"]
            equal &= (
                abs(rms[name] / rms["rtn"] - 1) < limits.EQUAL and abs(share[name] / share["rtn"] - 1) < limits.EQUAL
            )
            numbers |= {f"rms_{name}_{width}": rms[name], f"share_{name}_{width}": share[name]}
        numbers |= {f"rms_rtn_{width}": rms["rtn"], f"share_rtn_{width}": share["rtn"]}
        told.append(f"{width} bits: " + ", ".join(f"{n} {short(rms[n])} and {short(share[n])}" for n in rms))
    outcome: Outcome = "supports" if pays else "refutes" if equal else "inconclusive"
    why = f"rms error in steps (rounding without clipping: {limits.NEAREST_RMS}) and share in the steepest directions, "
    return SeedVerdict(outcome, why + "; ".join(told), numbers, bits[-1])


CLAIM = Claim(
    id="C13",
    title="second-order rounding pays in distance and in flat directions",
    source="ours",
    supports="at all bits measured the errors of GPTQ and AdaRound are .36 to .5 steps (rms), with a smaller share in "
    "the steepest directions than rtn's",
    refutes="distances and shares are equal to rtn's within 5 %",
    needs="probe curvature at rtn, gptq and adaround",
    judge=each_grid(_judge),
)

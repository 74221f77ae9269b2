"""C6: the way to the rounded weights crosses a wall, the way to QAT's codeword does not."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.curves import crossing
from qbench.claims.failing import Site, at_failure
from qbench.claims.ladders import metric, trace
from qbench.claims.numbers import nats, short
from qbench.claims.witnesses import first_point, witnesses


def _judge(site: Site) -> SeedVerdict:
    probe = site.subject.probe(site.seed, site.bits, "segments")
    rounding, at = first_point(probe), trace(probe, "t")
    inside = [one for one in witnesses(site, probe) if one.inside]
    to_rounding = trace(probe, f"fp->{rounding}")
    end, middle = to_rounding[-1], _at(at, to_rounding, 0.5)
    leaves = _exit(at[1:], to_rounding[1:], site.subject.tau(metric(probe, f"{rounding}/se")))
    numbers = {"D_end": end, "share_at_middle": middle / end if end else 0.0}
    numbers |= {} if leaves is None else {"t_exit": leaves}
    if not inside:
        why = "QAT found no codeword inside the basin whose segment could be looked at"
        return site.verdict("not applicable", why, **numbers)
    best = min(inside, key=lambda one: (one.excess, one.label))
    barrier = _barrier(at, trace(probe, f"fp->{best.label}"))
    across = _barrier(at, trace(probe, f"{rounding}->{best.label}"))
    convex = middle <= limits.CONVEX_MIDDLE * end
    outcome: Outcome = "inconclusive"
    if barrier >= limits.BARRIER_REFUTED * end:
        outcome = "refutes"
    elif leaves is not None and leaves < 1 and convex and barrier < limits.BARRIER * end:
        outcome = "supports"
    out = "the basin is never left" if leaves is None else f"the basin is left at t = {short(leaves)}"
    why = (
        f"towards {rounding} {out}, D is {nats(middle)} half way and {nats(end)} at the end "
        f"({'convex' if convex else 'not convex'}); towards {best.label} the barrier is {nats(barrier)}"
    )
    return site.verdict(outcome, why, barrier=barrier, barrier_between=across, **numbers)


def _exit(at: Sequence[float], curve: Sequence[float], level: float) -> float | None:
    """Return where the curve leaves the basin, at the latest its first place where it is outside there already."""
    return at[0] if curve[0] > level else crossing(at, curve, level)


def _barrier(at: Sequence[float], curve: Sequence[float]) -> float:
    """Return how far the curve rises above the straight line between its ends, nats."""
    return max(d - ((1 - t) * curve[0] + t * curve[-1]) for t, d in zip(at, curve, strict=True))


def _at(at: Sequence[float], curve: Sequence[float], where: float) -> float:
    return min(zip(at, curve, strict=True), key=lambda one: abs(one[0] - where))[1]


CLAIM = Claim(
    id="C6",
    title="the way to the rounded weights crosses a wall, the way to QAT's does not",
    source="ours",
    supports="from w_fp to the rounded weights the basin is left before the end and half way D is at most half its "
    "end; to QAT's codeword the barrier is below a quarter of that end",
    refutes="the barrier towards QAT's codeword is at least D of the rounded weights",
    needs="rtn, ste_qat on the frozen grid with D <= tau; probe segments at failing bits",
    judge=at_failure(_judge),
)

"""C12: at a fine grid the gap between PTQ and QAT vanishes."""

from __future__ import annotations

import itertools
import math

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict, each_grid
from qbench.claims.measured import Measured
from qbench.claims.numbers import listed, nats
from qbench.claims.pairs import best_of_common
from qbench.claims.subject import LackingError, Subject

_ARMS = ("ste_qat", "ft_then_ptq")


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    failing = subject.failing(seed)
    both = set(subject.bits("ste_qat", seed)) & set(subject.bits("ft_then_ptq", seed))
    bits = [width for width in subject.bits("rtn", seed) if width in both]
    if len(bits) < 3 or bits[0] < limits.FINE_BITS:
        had = ", ".join(map(str, bits)) or "none"
        raise LackingError(f"ste_qat and ft_then_ptq at three bitwidths, 8 among them (has {had})")
    arms = {width: best_of_common(subject, seed, width, _ARMS) for width in bits}
    beyond = {width: one["ft_then_ptq"].excess - one["ste_qat"].excess for width, one in arms.items()}
    fine = arms[bits[0]]["ft_then_ptq"]
    why = f"what QAT gains beyond fine-tuning and rounding, nats: {listed({f'{b} bits': g for b, g in beyond.items()})}"
    numbers = {f"gap_{width}": value for width, value in beyond.items()}
    if beyond[bits[0]] > fine.tau_f:
        return SeedVerdict("refutes", f"{why} (tau_f at {bits[0]} bits {nats(fine.tau_f)})", numbers, bits[0])
    shared = [width for width in failing if width in bits]
    if not failing:
        return SeedVerdict("not applicable", f"rounding fails at no bits; {why}", numbers, bits[-1])
    if not shared:
        raise LackingError(f"ste_qat and ft_then_ptq at failing bits ({', '.join(map(str, failing))})")
    until = [width for width in bits if width >= shared[0]]
    grows = all(
        beyond[coarse] >= beyond[fine] - limits.MONOTONE_SE * _se(arms[fine], arms[coarse])
        for fine, coarse in itertools.pairwise(until)
    )
    last = arms[shared[0]]["ft_then_ptq"]
    outcome: Outcome = "inconclusive"
    if beyond[bits[0]] <= fine.tau and grows and beyond[shared[0]] > last.tau:
        outcome = "supports"
    return SeedVerdict(outcome, f"{why}, {'growing' if grows else 'not growing'} to {shared[0]}", numbers, shared[0])


def _se(*arms: dict[str, Measured]) -> float:
    return math.sqrt(sum(cell.se**2 for one in arms for cell in one.values()))


CLAIM = Claim(
    id="C12",
    title="at a fine grid the gap between PTQ and QAT vanishes",
    source="readers",
    supports="what QAT gains beyond fine-tuning in full precision and rounding, the same budgets and rates for both, "
    "is at most tau at 8 bits, grows as bits fall until rounding fails, and is above tau there",
    refutes="it is above tau_f at 8 bits",
    needs="rtn, ste_qat on the frozen grid and ft_then_ptq at three bitwidths from 8 to failing bits",
    judge=each_grid(_judge),
)

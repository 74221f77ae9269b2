"""Claims about failing bits: where they are judged, and what is said where no bit fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Judgement, Outcome, SeedRule, SeedVerdict, each_grid
from qbench.claims.measured import Measured
from qbench.claims.numbers import nats, times
from qbench.claims.subject import LackingError, Subject


@dataclass(frozen=True)
class Site:
    """One seed of a subject at the bits where it is judged.

    Attributes
    ----------
    subject : Subject
        The model and quantizer.
    seed, bits : int
        Where.
    rounded : Measured
        Round-to-nearest there.
    """

    subject: Subject
    seed: int
    bits: int
    rounded: Measured

    def verdict(self, outcome: Outcome, why: str, **numbers: float) -> SeedVerdict:
        """Return a verdict at these bits, with the excess of rounding among its numbers."""
        return SeedVerdict(outcome, why, {"D_rtn": self.rounded.excess, **numbers}, self.bits)


SiteRule = Callable[[Site], SeedVerdict]
"""Judges one seed at bits where rounding fails; raises `LackingError` where something is missing."""


def at_failure(rule: SiteRule) -> Callable[[Claim, Sequence[Subject]], list[Judgement]]:
    """Return a judge at the most bits at which rounding fails and everything needed is there.

    Where no bit fails the claim is not applicable; the numbers are those of the fewest bits all the same.
    """
    return each_grid(_seed_rule(rule, Subject.failing, "fails"))


def at_exit(rule: SiteRule) -> Callable[[Claim, Sequence[Subject]], list[Judgement]]:
    """Return a judge at the most bits at which rounding is outside the basin and everything needed is there."""
    return each_grid(_seed_rule(rule, Subject.outside, "leaves the basin"))


def _seed_rule(rule: SiteRule, where: Callable[[Subject, int], list[int]], does: str) -> SeedRule:
    def judge(subject: Subject, seed: int) -> SeedVerdict:
        failing = where(subject, seed)
        if not failing:
            return _void(rule, subject, seed, does)
        gaps: list[str] = []
        for bits in failing:
            try:
                found = rule(Site(subject, seed, bits, subject.rounding(seed, bits)))
            except LackingError as gap:
                gaps.append(str(gap))
                continue
            if bits == failing[0]:
                return found
            return replace(
                found, why=f"{found.why} (rounding {does} from {failing[0]} bits on, where it lacks {gaps[0]})"
            )
        raise LackingError(gaps[0])

    return judge


def _void(rule: SiteRule, subject: Subject, seed: int, does: str) -> SeedVerdict:
    widths = subject.bits("rtn", seed)
    if not widths:
        raise LackingError("rtn")
    lowest = widths[-1]
    rounded = subject.rounding(seed, lowest)
    if lowest > limits.COARSE_BITS and not subject.is_lattice:
        raise LackingError(f"rtn at fewer than {lowest} bits: it {does} at none of those that were run")
    which = "rounding" if rounded.label == "rtn" else f"rounding ({rounded.label})"
    why = f"{which} fails at no bits and is inside at {lowest}"
    if rounded.regime == "grey":
        why = f"{which} {does} at no bits: at {lowest} bits D = {nats(rounded.excess)} is grey"
        share = rounded.excess / rounded.tau_f
        why += f", outside tau = {nats(rounded.tau)} and {times(share)} of tau_f = {nats(rounded.tau_f)}"
    try:
        found = rule(Site(subject, seed, lowest, rounded))
    except LackingError:
        return SeedVerdict("not applicable", why, {"D_rtn": rounded.excess}, lowest)
    return SeedVerdict("not applicable", f"{why}; there, for what it is worth, {found.why}", found.numbers, lowest)

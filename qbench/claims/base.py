"""What a claim is, what is said of one seed, and how seeds are put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qbench.claims import thresholds
from qbench.claims.spread import Spread, spreads
from qbench.claims.subject import LackingError, Subject

Outcome = Literal["supports", "refutes", "inconclusive", "not applicable", "not judged"]
Verdict = Literal["supported", "refuted", "inconclusive", "not applicable", "not judged"]
Source = Literal["abstract", "readers", "ours"]


@dataclass(frozen=True)
class SeedVerdict:
    """What one seed says.

    Attributes
    ----------
    outcome : str
        ``supports``, ``refutes``, ``inconclusive``, ``not applicable`` (a precondition is false) or ``not judged``
        (something is missing).
    why : str
        One sentence with the numbers.
    numbers : dict of str to float
        What was measured.
    bits : int or None
        Where it was judged.
    lacks : tuple of str
        What is missing.
    """

    outcome: Outcome
    why: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    bits: int | None = None
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A claim about a model and a quantizer.

    Attributes
    ----------
    claim, title : str
        Which claim.
    model, quantizer : str
        Labels. A claim about all lattices of a model has ``lattice``.
    verdict : str
        ``supported``, ``refuted``, ``inconclusive``, ``not applicable`` or ``not judged``.
    bits : tuple of int
        Where the seeds were judged, falling.
    numbers : dict of str to Spread
        Means over seeds with their intervals.
    seeds : dict of int to SeedVerdict
        Seed by seed.
    why : str
        One paragraph: how the seeds add up, and what each says.
    lacks : tuple of str
        What is missing.
    """

    claim: str
    title: str
    model: str
    quantizer: str
    verdict: Verdict
    bits: tuple[int, ...] = ()
    numbers: Mapping[str, Spread] = field(default_factory=dict)
    seeds: Mapping[int, SeedVerdict] = field(default_factory=dict)
    why: str = ""
    lacks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data; NaN and infinities are as they are."""
        return asdict(self)


@dataclass(frozen=True)
class Claim:
    """A claim with its rule.

    Attributes
    ----------
    id : str
        Such as ``C7``.
    title : str
        One line.
    source : str
        Who makes it: the ``abstract`` of arXiv:2606.09012, its ``readers``, or ``ours``.
    supports, refutes : str
        The rule in words, per seed.
    needs : str
        Cells and probes it is judged by.
    judge : callable
        ``judge(claim, subjects)`` returns one judgement for everything the claim could be about.
    """

    id: str
    title: str
    source: Source
    supports: str
    refutes: str
    needs: str
    judge: Callable[[Claim, Sequence[Subject]], list[Judgement]]

    @property
    def rule(self) -> str:
        """Return the rule in one line."""
        return f"Supports: {self.supports}. Refutes: {self.refutes}."


SeedRule = Callable[[Subject, int], SeedVerdict]
"""Judges one seed of a subject; raises `LackingError` where something is missing."""


def each_grid(rule: SeedRule) -> Callable[[Claim, Sequence[Subject]], list[Judgement]]:
    """Return a judge of every subject by itself, seed by seed."""

    def judge(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
        return [
            combine(claim, subject.model, subject.quantizer, _seeds(rule, subject), subject.seeds_needed)
            for subject in subjects
        ]

    return judge


def _seeds(rule: SeedRule, subject: Subject) -> dict[int, SeedVerdict]:
    return {seed: without_gaps(lambda seed=seed: rule(subject, seed)) for seed in subject.seeds}  # type: ignore[misc]


def without_gaps(judge: Callable[[], SeedVerdict]) -> SeedVerdict:
    """Return what `judge` returns, or what it lacks as a verdict."""
    try:
        return judge()
    except LackingError as gap:
        return SeedVerdict("not judged", f"lacks {gap}", lacks=(str(gap),))


def combine(
    claim: Claim, model: str, quantizer: str, seeds: Mapping[int, SeedVerdict], needed: int = thresholds.SEEDS
) -> Judgement:
    """Put seeds together: supported when all support, refuted when most refute, otherwise inconclusive.

    Seeds to which the claim does not apply, no more than half of all, are no objection.

    Parameters
    ----------
    claim : Claim
        What is judged.
    model, quantizer : str
        Of what.
    seeds : mapping of int to SeedVerdict
        Seed by seed.
    needed : int
        Seeds below which it is at most inconclusive.
    """
    counts = Counter(one.outcome for one in seeds.values())
    verdict, how = _add_up(counts, len(seeds), needed)
    numbers = spreads({seed: one.numbers for seed, one in seeds.items()})
    told = _told(seeds)
    return Judgement(
        claim=claim.id,
        title=claim.title,
        model=model,
        quantizer=quantizer,
        verdict=verdict,
        bits=tuple(sorted({one.bits for one in seeds.values() if one.bits is not None}, reverse=True)),
        numbers=numbers,
        seeds=dict(sorted(seeds.items())),
        why=f"{how}. {told}{_repeated(seeds)}",
        lacks=tuple(sorted({gap for one in seeds.values() for gap in one.lacks})),
    )


def _add_up(counts: Mapping[Outcome, int], seeds: int, needed: int) -> tuple[Verdict, str]:
    supporting, refuting = counts.get("supports", 0), counts.get("refutes", 0)
    gaps, void = counts.get("not judged", 0), counts.get("not applicable", 0)
    of = f"of {seeds} seed{'s' if seeds != 1 else ''}"
    if gaps + void == seeds:
        if void and void >= gaps:
            rest = f", {gaps} not judged" if gaps else ""
            return "not applicable", f"The precondition is false in {void} {of}{rest}"
        return "not judged", f"{gaps} {of} not judged"
    tally = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    judged = seeds - gaps - void
    if judged < needed and (judged in (supporting, refuting)):
        few = f"{judged} seed{'s' if judged != 1 else ''} judged {of}"
        return "inconclusive", f"Too few seeds for a verdict, {needed} are needed: {few} ({tally})"
    if supporting == judged and not gaps and 2 * void <= seeds:
        if void:
            return "supported", f"All {judged} seeds to which it applies support it, {of}"
        return "supported", f"All {seeds} seeds support it" if seeds > 1 else "It supports it, and nothing is random"
    if 2 * refuting > seeds and judged >= needed:
        return "refuted", f"Most seeds contradict it: {refuting} {of} ({tally})"
    if 2 * void > seeds:
        return "not applicable", f"The precondition is false in {void} {of} ({tally})"
    return "inconclusive", f"Seeds do not agree in support, nor do most contradict ({tally})"


def _repeated(seeds: Mapping[int, SeedVerdict]) -> str:
    """Return a remark where seeds measured the same to the last digit: it is one measurement, made several times."""
    measured = [dict(one.numbers) for one in seeds.values() if one.numbers]
    same = len(measured) > 1 and all(one == measured[0] for one in measured)
    return " The seeds agree to the last digit: nothing in this is random." if same else ""


def _told(seeds: Mapping[int, SeedVerdict]) -> str:
    """Return what the seeds say, those that say the same together."""
    said: dict[str, list[int]] = {}
    for seed, one in sorted(seeds.items()):
        said.setdefault(f"{one.outcome}: {one.why}", []).append(seed)
    return " ".join(
        f"Seed {same[0]} {text}." if len(same) == 1 else f"Seeds {', '.join(map(str, same))} {_plural(text)}."
        for text, same in said.items()
    )


def _plural(text: str) -> str:
    return text.replace("supports:", "support:", 1).replace("refutes:", "refute:", 1)

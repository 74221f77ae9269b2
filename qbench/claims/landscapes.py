"""Claims that only a landscape can decide, because there the basin is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from qbench.claims.base import Claim, Judgement, SeedRule, combine, without_gaps
from qbench.claims.subject import LackingError, Subject
from qbench.claims.trajectories import Trajectory, landscape, plain_trajectories


def landscapes_of(subjects: Sequence[Subject]) -> list[Subject]:
    """Return the subjects whose model is a landscape."""
    return [subject for subject in subjects if "valley" in subject.facts]


def known(facts: dict[str, Any], name: str) -> float:
    """Return what a landscape says of itself.

    Raises
    ------
    LackingError
        It does not say it.
    """
    found = facts["valley"].get(name)
    if found is None:
        raise LackingError(f"{name} among the facts of the landscape")
    return float(found)


def each_landscape(rule: SeedRule) -> Callable[[Claim, Sequence[Subject]], list[Judgement]]:
    """Return a judge of every landscape by itself, seed by seed; of other models it says nothing."""

    def judge(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
        judged = []
        for subject in landscapes_of(subjects):
            seeds = {
                seed: without_gaps(lambda one=subject, at=seed: rule(one, at))  # type: ignore[misc]
                for seed in subject.seeds
            }
            judged.append(combine(claim, subject.model, subject.quantizer, seeds, subject.seeds_needed))
        return judged

    return judge


def entries(subject: Subject, seed: int) -> list[tuple[Trajectory, float, int]]:
    """Return every plain training that begins outside: its trajectory, first moment inside (or infinite), and bits.

    Inside is where ``|z_F(q)| <= rho``. A moment that was looked at is at most later than the true first entry.
    """
    rho = known(subject.facts, "rho")
    found = []
    for bits in subject.bits("ste_qat", seed):
        for way in plain_trajectories(subject, seed, bits):
            away = landscape(way.cell, "normal_distance")
            if away[0] > rho:
                first = next((step for step, z in zip(way.step, away, strict=True) if z <= rho), math.inf)
                found.append((way, first, bits))
    return found

"""Claims that only a landscape can decide, because there the basin is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qbench.claims.base import Claim, Judgement, SeedVerdict, combine, without_gaps
from qbench.claims.subject import LackingError, Subject
from qbench.claims.trajectories import Trajectory, landscape, plain_trajectories

EVERY = "all grids"
"""What stands for the quantizer in a judgement about all grids of a landscape."""

GridsRule = Callable[[Sequence[Subject], int], SeedVerdict]
"""Judges one seed of a landscape on all its grids; raises `LackingError` where something is missing."""


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


def entry_bound(offset: float, rate: float, facts: Mapping[str, float], error: float, gradient: float) -> float:
    """Return ``r0^2 / (eta [2 G (rho - e) - eta G'^2])``, infinite where the bracket is not positive.

    Parameters
    ----------
    offset : float
        r0, ``|z_F|`` of the weights before training.
    rate : float
        Learning rate eta.
    facts : dict of str to float
        Of the landscape: ``rho`` and ``wall`` (G).
    error, gradient : float
        Bounds e and G' on ``|U_F^T (q - w)|`` and ``|U_F^T grad f(q)|`` until the entry.
    """
    fall = rate * (2 * facts["wall"] * (facts["rho"] - error) - rate * gradient**2)
    return offset**2 / fall if fall > 0 else math.inf


def each_landscape(rule: GridsRule) -> Callable[[Claim, Sequence[Subject]], list[Judgement]]:
    """Return a judge of every landscape, seed by seed and on all grids together; of other models it says nothing."""

    def judge(claim: Claim, subjects: Sequence[Subject]) -> list[Judgement]:
        models: dict[str, list[Subject]] = {}
        for subject in subjects:
            if "valley" in subject.facts:
                models.setdefault(subject.model, []).append(subject)
        return [_combined(rule, claim, model, ours) for model, ours in models.items()]

    return judge


def _combined(rule: GridsRule, claim: Claim, model: str, subjects: Sequence[Subject]) -> Judgement:
    seeds = sorted({seed for subject in subjects for seed in subject.seeds})
    verdicts = {
        seed: without_gaps(lambda at=seed: rule([one for one in subjects if at in one.seeds], at))  # type: ignore[misc]
        for seed in seeds
    }
    quantizer = subjects[0].quantizer if len(subjects) == 1 else EVERY
    return combine(claim, model, quantizer, verdicts, subjects[0].seeds_needed)


@dataclass(frozen=True)
class Entry:
    """A plain training that began outside the basin.

    Attributes
    ----------
    subject : Subject
        The landscape with its grid.
    way : Trajectory
        The training.
    bits : int
        Bits of the codes.
    first : float
        The first moment inside, infinite where there is none. Where not every step was looked at, the true entry is
        earlier.
    """

    subject: Subject
    way: Trajectory
    bits: int
    first: float


def entries(subjects: Sequence[Subject], seed: int) -> list[Entry]:
    """Return every plain training that began outside; inside is where ``|z_F(q)| <= rho``.

    Raises
    ------
    LackingError
        There is no plain training at all.
    """
    found, gaps, trainings = [], [], 0
    for subject in subjects:
        rho = known(subject.facts, "rho")
        for bits in subject.bits("ste_qat", seed):
            try:
                ways = plain_trajectories(subject, seed, bits)
            except LackingError as gap:
                gaps.append(str(gap))
                continue
            trainings += len(ways)
            for way in ways:
                away = landscape(way.cell, "normal_distance")
                if away[0] > rho:
                    first = next((step for step, z in zip(way.step, away, strict=True) if z <= rho), math.inf)
                    found.append(Entry(subject, way, bits, first))
    if not trainings:
        raise LackingError(gaps[0] if gaps else "ste_qat by plain sgd with a trajectory")
    return found

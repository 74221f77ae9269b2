"""From the depths of stand-ins to those of methods: what is fitted, on which models, and how sure it is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qbench.diagnosis.reading import Reading

METHODS = ("rtn", "second_order", "qat")
COVERAGE = 0.9
"""What intervals are meant to cover."""
WITHIN = 1.645
"""Standard deviations that so much of a normal distribution is within."""
_DECAYS = [step / 100 for step in range(1, 151)]


@dataclass(frozen=True)
class Case:
    """A forecast's inputs with what came out.

    Attributes
    ----------
    family : str
        Of the model.
    start, end : float
        Depths of the stand-ins for where training begins and for what it tends to; of a method that does not train
        both are those of its own stand-in, see `inputs_of`.
    measured : float
        Depth of what was measured.
    steps : int
        Of training; 0 for a method that does not train.
    sd : float
        What chance makes of the stand-ins' depth.
    """

    family: str
    start: float
    end: float
    measured: float
    steps: int = 0
    sd: float = 0.0


@dataclass(frozen=True)
class Correction:
    """How the depth of a method follows from those of stand-ins.

    Attributes
    ----------
    slope : float
        Depth over that of the stand-in: 1 by derivation, fitted for training alone.
    spread : float
        Depth that 90 % of the models of the fit are within, beside what chance makes of the stand-ins.
    decay : float
        Of training: how fast it forgets where it begins, see `depth_of`.
    """

    slope: float
    spread: float
    decay: float = 0.0

    def depth_of(self, start: float, end: float, steps: int = 0) -> float:
        """Return the depth of a method.

        Parameters
        ----------
        start, end : float
            Depths of stand-ins; see `inputs_of`.
        steps : int
            Of training.

        Notes
        -----
        Training begins where rounding to nearest is, and tends to ``slope`` times what second-order rounding has; of
        the way between, ``(1 + steps)^-decay`` is left.
        """
        left = (1 + steps) ** -self.decay if self.decay else 0.0
        return self.slope * end * (1 - left) + start * left

    def interval(self, forecast: float, sd: float) -> tuple[float, float]:
        """Return the ends of the 90 % interval of a depth.

        Parameters
        ----------
        forecast : float
            Of `depth_of`.
        sd : float
            What chance makes of the stand-ins' depth.
        """
        half = math.hypot(self.spread, WITHIN * sd)
        return max(forecast - half, 0.0), forecast + half


Corrections = Mapping[str, Correction]
"""By `METHODS`."""


def family_of(model: str) -> str:
    """Return the family of a model by its label: what its name begins with, such as ``llama`` or ``resnet``."""
    found = re.match(r"[a-z]+", model.partition("[")[0].rpartition("/")[2].lower())
    return found[0] if found else model


def inputs_of(method: str, reading: Reading) -> tuple[float, float]:
    """Return the depths that `Correction.depth_of` is given for a method: where it begins, and what it tends to."""
    if method == "rtn":
        return reading.matched.mean, reading.matched.mean
    if method == "second_order":
        return reading.second_order.mean, reading.second_order.mean
    return reading.matched.mean, reading.second_order.mean


def chance_of(method: str, reading: Reading) -> float:
    """Return what chance makes of the depth that a method is foretold from."""
    return reading.matched.sd if method == "rtn" else reading.second_order.sd


def fit(cases: Mapping[str, Sequence[Case]]) -> dict[str, Correction]:
    """Return the corrections that fit cases best, families counting alike however many cases they have.

    Parameters
    ----------
    cases : mapping of str to sequence of Case
        By `METHODS`.
    """
    found = {}
    for method in METHODS:
        own = cases.get(method, ())
        if own:
            found[method] = _with_spread(own, _trained(own) if method == "qat" else Correction(1.0, 0.0))
    return found


def with_widest(fitted: Corrections, left_out: Iterable[Corrections]) -> dict[str, Correction]:
    """Return corrections with the widest spread of those that were fitted without some family.

    The next model is of a family that none was fitted on: its interval is that of the forecasts that were judged.
    """
    others = list(left_out)
    found = {}
    for method, one in fitted.items():
        spreads = [other[method].spread for other in others if method in other]
        found[method] = Correction(one.slope, max([one.spread, *spreads]), one.decay)
    return found


def _trained(cases: Sequence[Case]) -> Correction:
    """Return slope and decay with the least squares."""
    weights = _weights(cases)
    best: tuple[float, Correction] | None = None
    for decay in _DECAYS:
        left = [(1 + case.steps) ** -decay for case in cases]
        moving = [case.end * (1 - part) for case, part in zip(cases, left, strict=True)]
        rest = [case.measured - case.start * part for case, part in zip(cases, left, strict=True)]
        tried = Correction(_slope(weights, moving, rest), 0.0, decay)
        error = math.fsum(
            weight * (tried.depth_of(case.start, case.end, case.steps) - case.measured) ** 2
            for weight, case in zip(weights, cases, strict=True)
        )
        if best is None or error < best[0]:
            best = error, tried
    assert best is not None
    return best[1]


def _slope(weights: Sequence[float], x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope through 0, from 0 to 1, with slope 1 as one more family.

    That training ends where second-order rounding does is what one would say without any data. It counts as a family
    of the mean size does.
    """
    families = math.fsum(weights)
    squares = math.fsum(w * a * a for w, a in zip(weights, x, strict=True))
    products = math.fsum(w * a * b for w, a, b in zip(weights, x, y, strict=True))
    prior = squares / families if families else 0.0
    return min(max((products + prior) / (squares + prior), 0.0), 1.0) if squares else 1.0


def _weights(cases: Iterable[Case]) -> list[float]:
    held = list(cases)
    counts = Counter(case.family for case in held)
    return [1 / counts[case.family] for case in held]


def _with_spread(cases: Sequence[Case], found: Correction) -> Correction:
    """Return a correction with the depth that 90 % of the cases are within, by weight, beside chance."""
    scored = []
    for weight, case in zip(_weights(cases), cases, strict=True):
        off = abs(case.measured - found.depth_of(case.start, case.end, case.steps))
        scored.append((math.sqrt(max(off**2 - (WITHIN * case.sd) ** 2, 0.0)), weight))
    scored.sort()
    wanted, held = COVERAGE * math.fsum(weight for _, weight in scored), 0.0
    for off, weight in scored:
        held += weight
        if held >= wanted - 1e-12:
            return Correction(found.slope, off, found.decay)
    return Correction(found.slope, scored[-1][0], found.decay)

"""How depth grows with relative error: a power law from one measured radius to the next."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from qbench.diagnosis.depth import excess_at
from qbench.diagnosis.reading import Reading

_BOWL = 2.0
"""The exponent below the smallest radius: a loss at its minimum is a bowl."""
_LEAST = 1e-9
_FLAT = 1e-3
_FARTHEST = math.log(1e6)
_FARTHEST_RISE = 600.0


@dataclass(frozen=True)
class Law:
    """Excess loss over relative error, in multiples of the tolerance.

    Attributes
    ----------
    radii, excesses : tuple of float
        Measured; radii rise, excesses do not fall.

    Notes
    -----
    Between two radii ln D is linear in ln of the radius, beyond the last as before it, and below the first D is in
    proportion to the square. Where more error cost less (by chance, at large errors) the mean of both stands for both.
    """

    radii: tuple[float, ...]
    excesses: tuple[float, ...]

    def at(self, radius: float) -> float:
        """Return the excess at a relative error, in tolerances."""
        start, excess, exponent = self._piece(radius)
        # Where two radii are all but the same the law beyond them may be steeper than numbers can tell.
        rise = exponent * math.log(radius / start)
        return excess * math.exp(rise) if rise < _FARTHEST_RISE else math.inf

    def exponent(self, radius: float) -> float:
        """Return how steep the law is there: ``d ln D / d ln r``."""
        return self._piece(radius)[2]

    @property
    def basin_radius(self) -> float:
        """Return the relative error at which D is the tolerance; infinite where the law never comes so far."""
        if self.excesses[0] >= 1.0:
            return float(self.radii[0] * self.excesses[0] ** (-1 / _BOWL))
        for place, excess in enumerate(self.excesses):
            if excess >= 1.0:
                before, slope = self.excesses[place - 1], self._slope(place)
                return float(self.radii[place - 1] * before ** (-1 / slope))
        slope = self._slope(len(self.radii) - 1)
        # Nothing rises: the edge is nowhere in sight.
        farther = -math.log(self.excesses[-1]) / slope if slope > _FLAT else math.inf
        return float(self.radii[-1] * math.exp(farther)) if farther < _FARTHEST else math.inf

    @property
    def brackets_edge(self) -> bool:
        """Return whether the basin's edge lies between two radii that were measured."""
        return self.excesses[0] < 1.0 <= self.excesses[-1]

    def _piece(self, radius: float) -> tuple[float, float, float]:
        """Return a radius, its excess and the exponent from there on."""
        place = bisect_left(self.radii, radius)
        if place == 0:
            return self.radii[0], self.excesses[0], _BOWL
        place = min(place, len(self.radii) - 1)
        return self.radii[place - 1], self.excesses[place - 1], self._slope(place)

    def _slope(self, place: int) -> float:
        if place == 0:
            return _BOWL
        rise = math.log(self.excesses[place] / self.excesses[place - 1])
        return rise / math.log(self.radii[place] / self.radii[place - 1])


def law_of(ladder: Iterable[Reading]) -> Law:
    """Return the law of one model, quantizer and seed, from its `matched` errors at several bits.

    Parameters
    ----------
    ladder : iterable of Reading
        At least one.
    """
    points: dict[float, float] = {}
    for one in ladder:
        tolerance = one.basin.tolerance
        points[one.relative_error] = max(excess_at(one.matched.mean, tolerance) / tolerance, _LEAST)
    radii = sorted(points)
    return Law(tuple(radii), tuple(_rising([points[radius] for radius in radii])))


def _rising(values: list[float]) -> list[float]:
    """Return the nearest values, in logarithms, that do not fall (isotonic regression: neighbours are pooled)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((math.log(value), 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (one, first), (other, second) = pools[-2:]
            pools[-2:] = [((one * first + other * second) / (first + second), first + second)]
    # Equal values have no slope to divide by: they rise by next to nothing.
    found = [math.exp(mean) for mean, count in pools for _ in range(count)]
    return [value * (1 + 1e-9 * place) for place, value in enumerate(found)]


def margin(law: Law, radius: float) -> float:
    """Return how many rounding errors the basin is wide: its radius over a relative error; below 1 is outside."""
    return law.basin_radius / radius

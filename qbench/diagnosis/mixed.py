"""Bits for each layer within a budget, from what each layer's error costs."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qbench.diagnosis.law import Law
from qbench.diagnosis.layers import LayerLoss, on_bits
from qbench.diagnosis.reading import Reading


@dataclass(frozen=True)
class Mixture:
    """Bits of each layer.

    Attributes
    ----------
    bits : dict of str to int
        By layer.
    mean_bits : float
        Over weights.
    excess : float
        The sum of what the layers cost, nats.
    """

    bits: dict[str, int]
    mean_bits: float
    excess: float


def mixture(layers: Sequence[LayerLoss], readings: Sequence[Reading], law: Law, budget: float) -> Mixture:
    """Return the bits that cost least within a budget.

    Parameters
    ----------
    layers : sequence of LayerLoss
        What each layer costs at some bits.
    readings : sequence of Reading
        One for each of the bits that a layer may have.
    law : Law
        How costs grow.
    budget : float
        Bits a weight in the mean, not counting scales.

    Notes
    -----
    Costs of layers add up, and each falls with its bits: the layer whose next bits save most for what they store gets
    them first (the greedy choice is the best one on the convex hull of each layer's costs, which is what is walked
    along). All layers begin on the fewest bits.
    """
    costs = {
        layer.name: _hull(sorted((reading.bits, on_bits(layer, reading, law)) for reading in readings))
        for layer in layers
    }
    weights = {layer.name: layer.weights for layer in layers}
    total = sum(weights.values())
    place = dict.fromkeys(costs, 0)
    left = budget * total - sum(weights[name] * steps[0][0] for name, steps in costs.items())

    def offer(name: str) -> tuple[float, str]:
        return -_saving(costs[name], place[name]) / weights[name], name

    offers = [offer(name) for name, steps in costs.items() if len(steps) > 1]
    heapq.heapify(offers)
    while offers:
        _, name = heapq.heappop(offers)
        steps, here = costs[name], place[name]
        price = weights[name] * (steps[here + 1][0] - steps[here][0])
        if price > left + 1e-9 * total:
            continue
        left -= price
        place[name] += 1
        if place[name] + 1 < len(steps):
            heapq.heappush(offers, offer(name))
    bits = {name: costs[name][at][0] for name, at in place.items()}
    return Mixture(
        bits,
        sum(weights[name] * width for name, width in bits.items()) / total,
        math.fsum(costs[name][at][1] for name, at in place.items()),
    )


def uniform(layers: Sequence[LayerLoss], reading: Reading, law: Law) -> float:
    """Return the sum of what layers cost where all have the bits of a reading, nats."""
    return math.fsum(on_bits(layer, reading, law) for layer in layers)


def around(readings: Sequence[Reading], budget: float) -> list[Reading]:
    """Return the readings of the bits next to a budget: of as many, or of the next fewer and the next more."""
    below = [one for one in readings if one.bits <= budget]
    above = [one for one in readings if one.bits >= budget]
    ends = [max(below, key=lambda one: one.bits, default=None), min(above, key=lambda one: one.bits, default=None)]
    return list({one.bits: one for one in ends if one is not None}.values())


def patterns(bits: Mapping[str, int], most: int) -> dict[str, int]:
    """Return the layers that do not have so many bits as most of them, as the option ``layer_bits`` takes them."""
    return {name: width for name, width in bits.items() if width != most}


def _saving(steps: Sequence[tuple[int, float]], place: int) -> float:
    (low, cost), (high, lower) = steps[place], steps[place + 1]
    return (cost - lower) / (high - low)


def _hull(steps: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the steps on the lower convex hull: savings a bit fall from each to the next, and none is below 0."""
    found: list[tuple[int, float]] = []
    for step in steps:
        if found and step[1] >= found[-1][1]:
            continue
        found.append(step)
        while len(found) > 2 and _saving(found, len(found) - 3) < _saving(found, len(found) - 2):
            del found[-2]
    return found

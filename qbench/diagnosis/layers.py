"""Which layers eat the margin, and what each would lose on other bits."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from qbench.diagnosis.law import Law
from qbench.diagnosis.reading import Reading
from qbench.store.record import Record

_LEAST_EXPONENT, _MOST_EXPONENT = 1.0, 6.0
_NOTHING = 1e-12
"""Of what layers cost otherwise: where a whole kind was found to cost nothing its layers still share by size."""
_IN_BLOCK = re.compile(r"(?P<block>.*?\b\d+)\.(?P<kind>.+)")
_NUMBER = re.compile(r"\b\d+\b")


@dataclass(frozen=True)
class LayerLoss:
    """What one layer's error costs alone.

    Attributes
    ----------
    name : str
        Of the layer.
    weights : float
        How many it has.
    relative_error : float
        Of its rounding error, where it was measured.
    excess : float
        D when this layer alone is moved, nats; 0 where it was below 0 by chance.
    se : float
        Standard error of D; of a layer that shares a place with others its part of theirs.
    """

    name: str
    weights: float
    relative_error: float
    excess: float
    se: float = 0.0

    @property
    def cautious(self) -> float:
        """Return D and one standard error: what chance has made small must not look cheap."""
        return self.excess + self.se


def losses(record: Record) -> list[LayerLoss]:
    """Return what each layer costs, as the probe `layer_margins` found it, by name, numbers in their order.

    Parameters
    ----------
    record : Record
        Of the probe, sound.

    Notes
    -----
    Where blocks and kinds of layers were measured, a layer has a part of its block's excess: in proportion to the
    excess of its kind, shared by all layers of that kind. A layer whose kind was not measured counts by its squared
    error, at what those of the other layers cost.
    """
    metrics = record.metrics
    names = sorted((name.removeprefix("weights/") for name in metrics if name.startswith("weights/")), key=_natural)
    found = {
        name.removesuffix("/excess"): max(value, 0.0) for name, value in metrics.items() if name.endswith("/excess")
    }
    sizes = _sizes(names, found, metrics)
    held = {}
    for place, layers in _layers_of([place for place in found if not place.startswith("*.")], names).items():
        total = math.fsum(sizes[name] for name in layers)
        for name in layers:
            part = sizes[name] / total if total else 1 / len(layers)
            size = metrics[f"weights/{name}"], metrics[f"relative_error/{name}"]
            held[name] = LayerLoss(name, *size, part * found[place], part * metrics[f"{place}/se"])
    return [held[name] for name in names if name in held]


def _sizes(names: Sequence[str], found: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what each layer costs by its kind, up to a factor."""
    kinds = {name: f"*.{_parts(name)[1]}" for name in names}
    counts = Counter(kinds.values())
    squares = {name: metrics[f"weights/{name}"] * metrics[f"relative_error/{name}"] ** 2 for name in names}
    known = {name: found[kinds[name]] / counts[kinds[name]] for name in names if found.get(kinds[name])}
    of_known = math.fsum(squares[name] for name in known)
    scale = math.fsum(known.values()) / of_known if of_known else 1.0
    return {
        name: known.get(name, squares[name] * scale * (_NOTHING if known and kinds[name] in found else 1.0))
        for name in names
    }


def _layers_of(places: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the layers of each place: itself, a block, or a run of blocks; each layer is in one place.

    Records do not keep the order of layers. A block that no place names is in the run whose ends its name is between
    (what comes after the last name is the first one again: ``stem`` is before ``blocks.0``), and of several such in
    the one that has an end most like it.
    """
    if set(places) <= set(names):
        return {place: [place] for place in places}
    order = list(dict.fromkeys(_parts(name)[0] for name in names))
    ends = {place: place.split("..") for place in places}
    rank = {block: at for at, block in enumerate(order)}
    runs = [place for place, own in ends.items() if len(own) > 1]
    at_end = {end: place for place, own in ends.items() for end in own}

    def place_of(block: str) -> str | None:
        if block in at_end or not runs:
            return at_end.get(block)
        around = [one for one in runs if _between(rank[block], *(rank[end] for end in ends[one]))]
        return max(around or runs, key=lambda one: max(_alike(block, end) for end in ends[one]))

    held: dict[str, list[str]] = {place: [] for place in places}
    for name in names:
        place = place_of(_parts(name)[0])
        if place is not None:
            held[place].append(name)
    return held


def _parts(layer: str) -> tuple[str, str]:
    """Return the block and the kind of a layer, as `qbench.geometry.places` has them."""
    found = _IN_BLOCK.fullmatch(layer)
    return (found["block"], _NUMBER.sub("*", found["kind"])) if found else (layer, "")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _between(at: int, first: int, last: int) -> bool:
    return first < at < last if first < last else at > first or at < last


def _alike(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def on_bits(layer: LayerLoss, reading: Reading, law: Law) -> float:
    """Return what a layer would cost on the bits of a reading, nats, with its standard error on top.

    Parameters
    ----------
    layer : LayerLoss
        Measured at some bits.
    reading : Reading
        Of the same model and quantizer at any bits.
    law : Law
        How the whole model's excess grows with relative error: the layer's grows with the same exponent.
    """
    other = reading.layers[layer.name][1]
    if not layer.relative_error or not other:
        return 0.0
    between = math.sqrt(layer.relative_error * other)
    exponent = min(max(law.exponent(between), _LEAST_EXPONENT), _MOST_EXPONENT)
    return float(layer.cautious * (other / layer.relative_error) ** exponent)

"""Which layers eat the margin, and what each would lose on other bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qbench.diagnosis.law import Law
from qbench.diagnosis.reading import Reading
from qbench.store.record import Record

_LEAST_EXPONENT, _MOST_EXPONENT = 1.0, 6.0


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
    """Return what each layer costs, as the probe `layer_margins` found it, in forward order.

    Parameters
    ----------
    record : Record
        Of the probe, sound.

    Notes
    -----
    Where blocks and kinds of layers were measured, a layer has the part of its block's excess that its kind has among
    the kinds of the block; a layer whose kind was not measured counts by its squared error.
    """
    metrics = record.metrics
    names = [name.removeprefix("weights/") for name in metrics if name.startswith("weights/")]
    found = {
        name.removesuffix("/excess"): max(value, 0.0) for name, value in metrics.items() if name.endswith("/excess")
    }
    held = []
    for place, excess in found.items():
        if place.startswith("*."):
            continue
        for name, part in _parts(_layers_of(place, names), found, metrics).items():
            sizes = metrics[f"weights/{name}"], metrics[f"relative_error/{name}"]
            held.append(LayerLoss(name, *sizes, part * excess, part * metrics[f"{place}/se"]))
    return held


def _parts(layers: Sequence[str], found: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the part that each of some layers has of what they cost together."""
    sizes = {name: _size(name, found, metrics) for name in layers}
    total = math.fsum(sizes.values())
    return {name: size / total if total else 1 / len(layers) for name, size in sizes.items()}


def _layers_of(place: str, names: Sequence[str]) -> list[str]:
    """Return the layers of a place: itself, a block, or a run of blocks."""
    if place in names:
        return [place]
    first, _, last = place.partition("..")
    starts = [index for index, name in enumerate(names) if name.startswith(f"{first}.")]
    ends = [index for index, name in enumerate(names) if name == last or name.startswith(f"{last or first}.")]
    return list(names[starts[0] : ends[-1] + 1]) if starts and ends else []


def _size(name: str, found: Mapping[str, float], metrics: Mapping[str, float]) -> float:
    kind = next(
        (excess for place, excess in found.items() if place.startswith("*.") and name.endswith(place[1:])), None
    )
    return kind if kind else metrics[f"weights/{name}"] * metrics[f"relative_error/{name}"] ** 2 * 1e-12


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

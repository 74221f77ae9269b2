"""What the probe `margin` found at one bitwidth, as forecasts read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from qbench.claims.evidence import flaw, options_of
from qbench.claims.regimes import Basin
from qbench.diagnosis.depth import depth
from qbench.store.record import Record

KINDS = ("matched", "second_order")


@dataclass(frozen=True)
class Depths:
    """The depth that errors of one kind lead to.

    Attributes
    ----------
    mean : float
        Over draws.
    sd : float
        What chance makes of the mean: the draws' spread and the sample's standard error.
    """

    mean: float
    sd: float


@dataclass(frozen=True)
class Reading:
    """What `margin` found of one model, quantizer, bitwidth and seed.

    Attributes
    ----------
    model, quantizer, bn : str
        Labels, and what became of batch norms.
    bits, seed : int
        Where.
    basin : Basin
        What counts as inside and as failed.
    relative_error, shrinkage : float
        ``|e| / |w|`` and ``-e . w / |w|^2`` of the rounding error.
    matched, second_order : Depths
        Of errors that stand for rounding to nearest, and for second-order rounding.
    layers : mapping of str to (float, float)
        Each layer's weights and relative error.
    tokens : float
        Tokens or images that losses were taken on.
    passes : float
        Times that they went through the model.
    seconds : float
        What it took.
    """

    model: str
    quantizer: str
    bn: str
    bits: int
    seed: int
    basin: Basin
    relative_error: float
    shrinkage: float
    matched: Depths
    second_order: Depths
    layers: Mapping[str, tuple[float, float]]
    tokens: float
    passes: float
    seconds: float

    @property
    def sqnr_db(self) -> float:
        """Return the signal-to-noise ratio of the rounded weights, dB."""
        return -20 * math.log10(self.relative_error)

    @property
    def place(self) -> tuple[str, str, str, int]:
        """Return model, quantizer, treatment of batch norms and seed: what a ladder of bits has in common."""
        return self.model, self.quantizer, self.bn, self.seed


def read(record: Record, basin: Basin) -> Reading:
    """Return what a record of `margin` says.

    Parameters
    ----------
    record : Record
        Of the probe, sound.
    basin : Basin
        Of its model.
    """
    metrics = record.metrics
    found = {kind: _depths(record, kind, basin.tolerance) for kind in KINDS}
    names = [name.removeprefix("weights/") for name in metrics if name.startswith("weights/")]
    return Reading(
        model=str(record.axes["model"]),
        quantizer=str(record.axes["quantizer"]),
        bn=str(options_of(record).get("bn", "keep")),
        bits=int(record.axes["bits"] or 0),
        seed=int(record.axes["seed"] or 0),
        basin=basin,
        relative_error=metrics["relative_error"],
        shrinkage=metrics["shrinkage"],
        matched=found["matched"],
        second_order=found["second_order"],
        layers={name: (metrics[f"weights/{name}"], metrics[f"relative_error/{name}"]) for name in names},
        tokens=metrics["sample_tokens"],
        passes=metrics["passes"],
        seconds=record.cost.evaluation_seconds,
    )


def readings(records: Iterable[Record]) -> list[Reading]:
    """Return the readings of all sound records of `margin`, by model, quantizer, batch norms, seed and falling bits.

    A model whose full precision is missing, or is no better than chance, has none.
    """
    held = list(records)
    full = {(one.axes["model"], one.axes["seed"]): one for one in held if one.axes["method"] == "fp"}
    found = []
    for record in held:
        if str(record.axes["method"]).partition("[")[0] != "margin" or flaw(record) is not None:
            continue
        own = full.get((record.axes["model"], record.axes["seed"]))
        if own is None or own.loss is None:
            continue
        basin = Basin.of(own.facts, own.loss)
        if basin.headroom is None or basin.headroom > 0:
            found.append(read(record, basin))
    return sorted(found, key=lambda one: (one.place, -one.bits))


def _depths(record: Record, kind: str, tolerance: float) -> Depths:
    draws = [depth(excess, tolerance) for excess in record.traces[f"{kind}/draws"]]
    excess, se = max(record.metrics[f"{kind}/excess"], 0.0), record.metrics[f"{kind}/se"]
    of_draws = stdev(draws) / math.sqrt(len(draws)) if len(draws) > 1 else 0.0
    return Depths(fmean(draws), math.hypot(of_draws, se / (tolerance + excess)))

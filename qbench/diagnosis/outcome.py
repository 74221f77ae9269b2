"""What methods really gave: the excess of rounding, of second-order rounding and of training at one bitwidth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from qbench.claims.evidence import flaw, options_of
from qbench.claims.regimes import Basin
from qbench.claims.statistics import paired_interval
from qbench.errors import StoreError
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.suite.cell import FP

SECOND_ORDER = ("gptq", "adaround")
TRAINED = ("ste_qat",)
_PLAIN = {"bn", "steps", "batch_size", "bn_training", "learning_rate", "precision"}
"""Options that a record may have off their defaults and still count as the method itself."""

Place = tuple[str, str, str, int]
"""Model, quantizer, treatment of batch norms, seed."""


@dataclass(frozen=True)
class Measured:
    """What one cell lost.

    Attributes
    ----------
    method : str
        Its label.
    excess, se : float
        D and its standard error over documents, nats.
    seconds : float
        Method and evaluation.
    way : tuple of (int, float)
        Optimizer steps and excess: at the end of training and, where that was looked at, on the way.
    """

    method: str
    excess: float
    se: float
    seconds: float
    way: tuple[tuple[int, float], ...] = ()

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole training."""
        return max((step for step, _ in self.way), default=0)


@dataclass
class Outcome:
    """What all methods lost at one bitwidth of one model, quantizer and seed.

    Attributes
    ----------
    basin : Basin
        What counts as inside and as failed.
    methods : dict of str to Measured
        By ``rtn``, ``gptq``, ``adaround`` and ``qat``; of several trainings the one with the least excess.
    seconds : float
        What all cells of these bits took, of any method.
    """

    basin: Basin
    methods: dict[str, Measured] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rtn(self) -> Measured | None:
        """Rounding to nearest."""
        return self.methods.get("rtn")

    @property
    def second_order(self) -> Measured | None:
        """The better of the second-order roundings that were run."""
        found = [self.methods[name] for name in SECOND_ORDER if name in self.methods]
        return min(found, key=lambda one: one.excess, default=None)

    @property
    def qat(self) -> Measured | None:
        """Training through the quantizer."""
        return self.methods.get("qat")


def merged(
    first: Mapping[tuple[Place, int], Outcome], second: Mapping[tuple[Place, int], Outcome]
) -> dict[tuple[Place, int], Outcome]:
    """Return all outcomes of two sources; of a method that both have, that of the first."""
    found = dict(second)
    for key, one in first.items():
        found[key] = replace(one, methods={**found[key].methods, **one.methods}) if key in found else one
    return found


def outcomes(records: Iterable[Record]) -> dict[tuple[Place, int], Outcome]:
    """Return what was measured, by place and bits.

    Parameters
    ----------
    records : iterable of Record
        Of one suite. Probes, and cells that are no evidence for what their names say, are left out.
    """
    held = list(newest(records).values())
    full = {(one.axes["model"], one.axes["seed"]): one for one in held if one.axes["method"] == FP}
    found: dict[tuple[Place, int], Outcome] = {}
    for record in held:
        own = full.get((record.axes["model"], record.axes["seed"]))
        if record.is_probe or record.axes["quantizer"] is None or own is None or flaw(record) or flaw(own):
            continue
        measured, bits = _measured(record, own), int(record.axes["bits"] or 0)
        if measured is None:
            continue
        name, bn = _kind(record), _bn(record)
        places = [_place(record, treated) for treated in (("keep", "recalibrate") if bn == "update" else (bn,))]
        for place in places:
            outcome = found.setdefault((place, bits), Outcome(Basin.of(own.facts, own.loss)))
            outcome.seconds += measured.seconds
            if name is not None:
                kept = "qat" if name in TRAINED else name
                before = outcome.methods.get(kept)
                if before is None or _rank(kept, measured) < _rank(kept, before):
                    outcome.methods[kept] = measured
    # Training alone makes no place of its own: there is nothing to be foretold beside it.
    return {key: outcome for key, outcome in found.items() if outcome.rtn is not None}


def _rank(name: str, measured: Measured) -> float:
    """Return by what one of several cells of a method counts: the best training, the plainest label of all else."""
    return measured.excess if name == "qat" else len(measured.method)


def _measured(record: Record, full: Record) -> Measured | None:
    try:
        excess = paired_interval([(record, full)])
    except StoreError:
        return None
    seconds = record.cost.method_seconds + record.cost.evaluation_seconds
    steps = record.traces.get("trajectory/step", [])
    on_the_way = zip(map(int, steps), record.traces.get("trajectory/deployed", []), strict=True)
    way = {0: 0.0, **dict(on_the_way), record.cost.train_steps: excess.mean}
    del way[0]  # before any update, which is rounding
    label = str(record.axes["method"])
    return Measured(label, excess.mean, excess.document_se or 0.0, seconds, tuple(sorted(way.items())))


def _kind(record: Record) -> str | None:
    """Return the method that a record is evidence for; None for one with options that make another of it."""
    options = options_of(record)
    name = str(options.get("name"))
    if name not in {"rtn", *SECOND_ORDER, *TRAINED}:
        return None
    label = str(record.axes["method"])
    inside = label.partition("[")[2].removesuffix("]")
    changed = {part.partition("=")[0] for part in inside.split(",") if part}
    return name if changed <= _PLAIN else None


def _bn(record: Record) -> str:
    treated = str(record.facts.get("bn") or options_of(record).get("bn", "keep"))
    updates = options_of(record).get("bn_training") == "update"
    return "update" if updates else treated


def _place(record: Record, bn: str) -> Place:
    axes = record.axes
    return str(axes["model"]), str(axes["quantizer"]), bn, int(axes["seed"] or 0)

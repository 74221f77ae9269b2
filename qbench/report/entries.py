"""One entry of the leaderboard: a model, a quantizer, a bitwidth and a method, all seeds together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qbench.claims.regimes import Basin, RowRegime, judge
from qbench.claims.statistics import Excess, Interval, Pair, accuracy_change, paired_interval, recovery
from qbench.errors import StoreError
from qbench.report.notes import NoteBook
from qbench.store.record import Record, find_accuracy
from qbench.suite.cell import FP, cell_label

Axes = Mapping[str, str | int | None]
"""`Cell.axes`, with the reason of a skipped cell under ``skip``."""
_QAT = frozenset({"ste_qat", "lsq"})
_ABLATIONS = frozenset({"latent_grad", "noise_grad", "random_grad", "ft_then_ptq"})


@dataclass(frozen=True)
class Entry:
    """What the leaderboard says of a row; means only where every expected seed is there.

    Attributes
    ----------
    bits : int or None
        None for full precision and its controls.
    method : str
        Label of the method.
    seeds : int
        Seeds expected.
    statuses : dict of str to int
        Seeds by status; ``missing`` where there is no record.
    loss : float or None
        Mean loss over seeds, nats a token (or an image).
    excess : Excess or None
        Over full precision.
    regime : RowRegime or None
        See `regimes`.
    recovered : Interval or None
        G against round-to-nearest on the same grid; None where that is inside the basin.
    metrics : dict of str to float
        Means over seeds of what all seeds measured.
    accuracy_change : Interval or None
        Accuracy above full precision's, a share; see `statistics.accuracy_change`.
    batch_norm : str or None
        What became of batch norm, where the model has any; seeds that differ stand side by side.
    effective_bits, method_seconds : float or None
        Means over seeds.
    peak_memory_bytes : int or None
        Highest over seeds.
    trained : bool
        The method trained the model: QAT, or one of the ablations that it is read against.
    fallbacks : int
        Layers that fell back, all seeds together.
    notes : tuple of int
        Numbers of footnotes.
    """

    bits: int | None
    method: str
    seeds: int
    statuses: dict[str, int]
    loss: float | None = None
    excess: Excess | None = None
    regime: RowRegime | None = None
    recovered: Interval | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    accuracy_change: Interval | None = None
    batch_norm: str | None = None
    effective_bits: float | None = None
    method_seconds: float | None = None
    peak_memory_bytes: int | None = None
    trained: bool = False
    fallbacks: int = 0
    notes: tuple[int, ...] = ()

    @property
    def is_qat(self) -> bool:
        """Whether the method is quantization-aware training, and not made to show what that is without a part."""
        return self.trained and self.method.partition("[")[0] not in _ABLATIONS

    @property
    def complete(self) -> bool:
        """Whether every expected seed ended well."""
        return self.statuses.get("ok", 0) == self.seeds

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over seeds, a share; None where a seed is missing or measured none."""
        return find_accuracy(self.metrics)


@dataclass(frozen=True)
class Places:
    """The places of one row, a seed each, and where records are looked up.

    Attributes
    ----------
    axes : sequence of Axes
        One a seed.
    records : mapping of str to Record
        By label.
    """

    axes: Sequence[Axes]
    records: Mapping[str, Record]

    def pairs(self) -> list[Pair] | None:
        """Return (record, full-precision record) of each seed, or None when one is not there or not well."""
        pairs = []
        for axes in self.axes:
            record = self.records.get(cell_label(dict(axes)))
            full = self.records.get(full_label(axes))
            if record is None or full is None or record.status != "ok" or full.status != "ok":
                return None
            pairs.append((record, full))
        return pairs


def full_label(axes: Axes) -> str:
    """Return the label of the full-precision cell of the same model and seed."""
    return cell_label({"model": axes["model"], "quantizer": None, "bits": None, "method": FP, "seed": axes["seed"]})


def is_rounding(method: str) -> bool:
    """Return whether a method label is round-to-nearest, with whatever options: what G is measured against."""
    return method.partition("[")[0] == "rtn"


def find_rounding(methods: Iterable[str]) -> str | None:
    """Return the round-to-nearest that others are measured against: the one without options where there is one."""
    return min(filter(is_rounding, methods), key=lambda method: method != "rtn", default=None)


def make_entry(places: Places, rounded: Places | None, book: NoteBook) -> Entry:
    """Return the entry of a row.

    Parameters
    ----------
    places : Places
        The row.
    rounded : Places or None
        The row of round-to-nearest on the same grid; None for that row itself.
    book : NoteBook
        Takes the reasons of what is not clean.
    """
    statuses: Counter[str] = Counter()
    found: list[Record] = []
    numbers: list[int] = []
    for axes in places.axes:
        label = cell_label(dict(axes))
        record = places.records.get(label)
        status, reason = outcome(axes, record)
        statuses[status] += 1
        if reason is not None:
            numbers.append(book.add(status, reason, label))
        if record is not None and status == "ok":
            found.append(record)
            numbers += [book.add("fallback", why, label) for why in record.fallbacks]
    first = places.axes[0]
    bits, method = first["bits"], str(first["method"])
    norms = dict.fromkeys(str(record.facts["bn"]) for record in found if "bn" in record.facts)
    entry = Entry(
        bits=None if bits is None else int(bits),
        method=method,
        seeds=len(places.axes),
        statuses=dict(statuses),
        fallbacks=sum(len(record.fallbacks) for record in found),
        trained=_trains(method, found, places),
        batch_norm="; ".join(norms) or None,
        notes=tuple(dict.fromkeys(numbers)),
    )
    return entry if not entry.complete else _measure(entry, found, places, rounded, book)


def _trains(method: str, found: Sequence[Record], places: Places) -> bool:
    """Return whether a method trains the model, also where no cell of the row came to that."""
    if found:
        return any(record.cost.train_tokens > 0 for record in found)
    name = method.partition("[")[0]
    others = (one for one in places.records.values() if str(one.axes["method"]).partition("[")[0] == name)
    return name in _QAT | _ABLATIONS or any(one.cost.train_tokens > 0 for one in others)


def outcome(axes: Axes, record: Record | None) -> tuple[str, str | None]:
    """Return how a place of the leaderboard ended, and why it is not well.

    Parameters
    ----------
    axes : Axes
        The place.
    record : Record or None
        What is held of it.

    Returns
    -------
    tuple of (str, str or None)
        A status of records, or ``missing`` where there is none; and the reason of one that is not ``ok``. A loss that
        is no number is ``diverged``, whatever the record says.
    """
    if record is not None and record.status == "ok" and record.loss is not None and not math.isfinite(record.loss):
        return "diverged", f"loss is {record.loss}"
    if record is not None:
        return record.status, None if record.status == "ok" else record.reason or "no reason given"
    return ("missing", None) if axes.get("skip") is None else ("skipped", str(axes["skip"]))


def _measure(entry: Entry, found: list[Record], places: Places, rounded: Places | None, book: NoteBook) -> Entry:
    losses = [record.loss for record in found if record.loss is not None]
    shared = set.intersection(*({*record.metrics} for record in found))
    widths = [record.effective_bits for record in found if record.effective_bits is not None]
    measured: dict[str, object] = {
        "loss": _mean(losses) if len(losses) == len(found) else None,
        "metrics": {name: _mean([record.metrics[name] for record in found]) for name in sorted(shared)},
        "effective_bits": _mean(widths) if len(widths) == len(found) else None,
        "method_seconds": _mean([record.cost.method_seconds for record in found]),
        "peak_memory_bytes": max(record.cost.peak_memory_bytes for record in found),
    }
    if entry.method != FP:
        try:
            measured |= _against_full(places, rounded)
        except StoreError as error:
            measured["notes"] = (*entry.notes, book.add("not comparable", str(error), found[0].label))
    return Entry(**{**vars(entry), **measured})


def _against_full(places: Places, rounded: Places | None) -> dict[str, object]:
    pairs = places.pairs()
    if pairs is None:
        raise StoreError("the full-precision cell of a seed is not there")
    excess, regime = stand(pairs)
    found: dict[str, object] = {"excess": excess, "regime": regime, "accuracy_change": accuracy_change(pairs)}
    others = None if rounded is None else rounded.pairs()
    if others is None or len(others) != len(pairs):
        return found
    reference, where = stand(others)
    lost = where is not None and where.mean != "inside" and math.isfinite(reference.mean)
    return found | {"recovered": recovery(pairs, others) if lost else None}


def stand(pairs: Sequence[Pair]) -> tuple[Excess, RowRegime | None]:
    """Return the excess loss of a row and its regime; None where full precision itself is no better than chance."""
    excess = paired_interval(pairs)
    full = [record for _, record in pairs]
    fp_loss = _mean([record.loss for record in full if record.loss is not None])
    basin = Basin.of(full[0].facts, fp_loss)
    if basin.headroom is not None and basin.headroom <= 0:
        return excess, None
    return excess, judge(excess, basin)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

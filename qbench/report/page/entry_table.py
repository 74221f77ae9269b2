"""The leaderboard as one table: a row an entry, whatever became of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.layout import incomplete
from qbench.report.leaderboard import Group, Leaderboard
from qbench.report.page.place import Place, Row, by_row, places_of
from qbench.report.run import Run
from qbench.suite.cell import FP

_WORST_FIRST = ("failed", "diverged", "timeout", "missing", "skipped")
_REGIMES = {"inside": 0, "grey": 1, "failed": 2}
_NONE = "none"


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes
    ----------
    key : str
        Its name in `Line.values`.
    title : str
        Header.
    tip : str
        What it holds, in a sentence.
    numeric : bool
        Whether it is sorted by number.
    listed : bool
        Whether a reader filters it by ticking values.
    """

    key: str
    title: str
    tip: str
    numeric: bool = False
    listed: bool = False


@dataclass(frozen=True)
class Value:
    """What stands in one column of one entry.

    Attributes
    ----------
    text : str
        As it is read.
    order : float or None
        What the column is sorted by; None for words, and where there is no number.
    word : str
        What a filter lists; empty where that is `text`.
    beside : str
        In smaller letters behind it, such as an interval.
    tone : str
        A class that colours it.
    """

    text: str
    order: float | None = None
    word: str = ""
    beside: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Line:
    """One entry.

    Attributes
    ----------
    values : dict of str to Value
        By column.
    places : tuple of Place
        Its cells, a seed each.
    reasons : tuple of str
        Why it is not clean, a line each.
    sound : bool
        Whether every cell is ok, or left out on purpose, and no layer fell back.
    """

    values: Mapping[str, Value]
    places: tuple[Place, ...]
    reasons: tuple[str, ...]
    sound: bool


@dataclass(frozen=True)
class EntryTable:
    """Columns that anything stands in, and all entries."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


COLUMNS = (
    Column("suite", "Suite", "Which suite it is an entry of.", listed=True),
    Column("model", "Model", "The model, with its data.", listed=True),
    Column("quantizer", "Quantizer", "Which grid the weights are rounded to.", listed=True),
    Column("bits", "Bits", "Bits a weight code.", numeric=True, listed=True),
    Column("method", "Method", "What chooses the points of the grid.", listed=True),
    Column("kind", "Kind", "PTQ, QAT, an ablation of QAT, full precision (fp), or a control.", listed=True),
    Column("regime", "Regime", "Inside the low-loss basin, grey, or failed.", listed=True),
    Column("excess", "Excess D", "Loss above full precision, nats, with its 95 % interval.", numeric=True),
    Column("accuracy", "Acc %", "Of the evaluation images, and points above full precision.", numeric=True),
    Column("recovered", "G", "Share of rtn's excess that the method does away with.", numeric=True),
    Column("seconds", "Sec.", "Seconds that the method took, mean over seeds.", numeric=True),
    Column("status", "Cells", "What became of them, and everything about each: a seed each.", listed=True),
    Column("effective", "Eff. bits", "What a weight takes, scales and zero points included.", numeric=True),
    Column("memory", "MiB", "Highest memory of the process.", numeric=True),
    Column("loss", "Loss", "Nats a token or an image, mean over seeds.", numeric=True),
)


def entry_table(runs: Sequence[Run], *, landscapes: bool = False) -> EntryTable:
    """Return every entry of runs.

    Parameters
    ----------
    runs : sequence of Run
        In the order of the page.
    landscapes : bool
        The entries of landscapes, which sheets stand for, and no other; by default all other entries.
    """
    lines = [line for run in runs for line in _lines(run, landscapes)]
    used = {key for line in lines for key, value in line.values.items() if value.text not in ("", numbers.ABSENT)}
    used -= {"suite"} if len(runs) == 1 else set()
    return EntryTable(tuple(column for column in COLUMNS if column.key in used), tuple(lines))


def kind_of(entry: Entry) -> str:
    """Return what sort of method an entry is of: ``fp``, ``control``, ``PTQ``, ``QAT`` or ``ablation``."""
    if entry.method == FP:
        return FP
    if entry.bits is None:
        return "control"
    return "QAT" if entry.is_qat else "ablation" if entry.trained else "PTQ"


def _lines(run: Run, landscapes: bool) -> Iterable[Line]:
    board = run.board
    kept = board.of_networks.groups
    groups = [group for group in board.groups if group not in kept] if landscapes else list(kept)
    places = by_row(place for place in places_of(run) if not place.probe)
    seen: set[Row] = set()
    for group in groups:
        for entry in group.entries:
            row: Row = (group.model, None if entry.bits is None else group.quantizer, entry.bits, entry.method)
            # Full precision and controls are in every group of their model.
            if row not in seen:
                seen.add(row)
                yield _line(run, board, group, entry, places.get(row, []))


def _line(run: Run, board: Leaderboard, group: Group, entry: Entry, places: Sequence[Place]) -> Line:
    labels = {place.label for place in places}
    notes = [board.notes[number - 1] for number in entry.notes]
    reasons = [f"{note.kind}: {note.reason}" for note in notes if labels & set(note.cells)]
    if entry.statuses.get("missing"):
        reasons.append("missing: there is no record")
    status = _status(entry)
    values = {
        "suite": Value(run.name),
        "model": Value(group.model),
        "quantizer": Value(
            "" if entry.bits is None else str(group.quantizer), word=_NONE if entry.bits is None else ""
        ),
        "bits": Value("" if entry.bits is None else str(entry.bits), entry.bits, _NONE if entry.bits is None else ""),
        "method": Value(entry.method),
        "kind": Value(kind_of(entry)),
        "status": status,
        **_measured(entry),
    }
    return Line(values, tuple(places), tuple(reasons), not status.tone)


def _measured(entry: Entry) -> dict[str, Value]:
    excess, regime, change = entry.excess, entry.regime, entry.accuracy_change
    word = "" if regime is None else regime.text.partition(" ")[0]
    return {
        "regime": Value(
            numbers.ABSENT if regime is None else regime.text, _REGIMES.get(word), word or _NONE, tone=word
        ),
        "excess": Value(
            numbers.ABSENT if excess is None else numbers.signed(excess.mean),
            None if excess is None else excess.mean,
            beside=numbers.spread(excess),
        ),
        "accuracy": Value(
            numbers.percent(entry.accuracy),
            entry.accuracy,
            beside="" if change is None else numbers.signed_points(change.mean),
        ),
        "recovered": Value(
            numbers.ABSENT if entry.recovered is None else numbers.share(entry.recovered.mean),
            None if entry.recovered is None else entry.recovered.mean,
        ),
        "loss": Value(numbers.loss(entry.loss), entry.loss),
        "effective": Value(
            numbers.ABSENT if entry.effective_bits is None else f"{entry.effective_bits:.2f}", entry.effective_bits
        ),
        "seconds": Value(numbers.seconds(entry.method_seconds), entry.method_seconds),
        "memory": Value(numbers.mebibytes(entry.peak_memory_bytes), entry.peak_memory_bytes),
    }


def _status(entry: Entry) -> Value:
    if entry.complete:
        if not entry.fallbacks:
            return Value("ok")
        layers = "layer" if entry.fallbacks == 1 else "layers"
        return Value(f"ok, {entry.fallbacks} {layers} fell back", word="fallback", tone="bad")
    worst = next((name for name in _WORST_FIRST if entry.statuses.get(name)), next(iter(entry.statuses)))
    return Value(incomplete(entry), word=worst, tone="muted" if set(entry.statuses) == {"skipped"} else "bad")


def order(value: Value) -> str:
    """Return what a browser sorts by: every digit, nothing where there is no number."""
    return "" if value.order is None or not math.isfinite(value.order) else repr(float(value.order))

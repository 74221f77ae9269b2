"""The results as tidy rows, every digit kept: what the formats for other programs write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from qbench.report.entries import Axes, Entry, outcome
from qbench.store.newest import newest
from qbench.suite.cell import cell_label

if TYPE_CHECKING:
    from qbench.claims.statistics import Interval
    from qbench.report.leaderboard import Leaderboard
    from qbench.report.run import Run
    from qbench.store.record import Record

Value = str | int | float | bool | None
Row = dict[str, Value]

ENTRY_COLUMNS: Mapping[str, type] = {
    "suite": str,
    "model": str,
    "quantizer": str,
    "bits": int,
    "method": str,
    "trained": bool,
    "batch_norm": str,
    "seeds": int,
    "complete": bool,
    "ok": int,
    "failed": int,
    "diverged": int,
    "timeout": int,
    "skipped": int,
    "missing": int,
    "loss": float,
    "excess": float,
    "excess_low": float,
    "excess_high": float,
    "regime": str,
    "regime_seeds": int,
    "tau": float,
    "tau_f": float,
    "recovered": float,
    "recovered_low": float,
    "recovered_high": float,
    "accuracy": float,
    "accuracy_change": float,
    "accuracy_change_low": float,
    "accuracy_change_high": float,
    "effective_bits": float,
    "method_seconds": float,
    "peak_memory_bytes": int,
    "fallbacks": int,
    "notes": str,
}
"""What `rows` tells of every row; the metrics follow."""

CELL_COLUMNS: Mapping[str, type] = {
    "suite": str,
    "kind": str,
    "model": str,
    "quantizer": str,
    "bits": int,
    "method": str,
    "seed": int,
    "status": str,
    "reason": str,
    "cell_id": str,
    "loss": float,
    "accuracy": float,
    "effective_bits": float,
    "method_seconds": float,
    "evaluation_seconds": float,
    "peak_memory_bytes": int,
    "calibration_tokens": int,
    "train_tokens": int,
    "train_steps": int,
    "fallbacks": int,
    "fallback_reasons": str,
    "weights_sha256": str,
    "started": str,
    "ended": str,
    "device": str,
    "qbench": str,
}
"""What `cell_rows` tells of every cell; the metrics follow."""

_STATUSES = ("ok", "failed", "diverged", "timeout", "skipped", "missing")


def rows(run: Run) -> list[Row]:
    """Return a row an entry of the leaderboard: a model, a quantizer, a bitwidth and a method, all seeds together.

    Parameters
    ----------
    run : Run
        What to tell of.

    Returns
    -------
    list of dict
        The columns of `ENTRY_COLUMNS`, then every metric by its record name, in alphabetical order; all rows have the
        same. Nothing is rounded. What was not measured is None, and so is every number of a row that is not complete:
        ``ok`` to ``missing`` count its seeds, and ``notes`` tells the reasons. Losses are in nats a token or an image,
        shares between 0 and 1. ``regime_seeds`` says how many seeds are in ``regime``. Full precision and its controls
        have neither quantizer nor bits, and stand once a model.
    """
    board = run.board
    found = [_entry_row(run.name, model, quantizer, entry, board) for model, quantizer, entry in _entries(board)]
    return _completed(found, ENTRY_COLUMNS)


def cell_rows(run: Run) -> list[Row]:
    """Return a row a cell, those of probes too, and those that are missing or left out by the suite.

    Parameters
    ----------
    run : Run
        What to tell of.

    Returns
    -------
    list of dict
        The columns of `CELL_COLUMNS`, then every metric by its record name, in alphabetical order; all rows have the
        same. ``kind`` is ``method`` or ``probe``; the name of a probe stands under ``method``. Of several records of a
        cell the newest counts, as in the leaderboard.
    """
    methods = [record for record in run.records if not record.is_probe]
    probes = [record for record in run.records if record.is_probe]
    found = _cells(run.name, "method", methods, run.places)
    return _completed([*found, *_cells(run.name, "probe", probes, run.probes)], CELL_COLUMNS)


def table(runs: Sequence[Run], *, cells: bool) -> tuple[dict[str, type], list[Row]]:
    """Return the rows of several runs one after the other, under the columns of them all.

    Parameters
    ----------
    runs : sequence of Run
        What to tell of.
    cells : bool
        Return a row a cell, and not one an entry.

    Returns
    -------
    tuple of (dict of str to type, list of dict)
        The type of each column, and rows that all have every column.
    """
    fixed = CELL_COLUMNS if cells else ENTRY_COLUMNS
    told: Callable[[Run], list[Row]] = cell_rows if cells else rows
    found = _completed([row for run in runs for row in told(run)], fixed)
    metrics = [name for name in (found[0] if found else ()) if name not in fixed]
    return dict(fixed) | dict.fromkeys(metrics, float), found


def _entries(board: Leaderboard) -> Iterator[tuple[str, str | None, Entry]]:
    told: set[tuple[str, str]] = set()
    for group in board.groups:
        for entry in group.entries:
            if entry.bits is not None:
                yield group.model, group.quantizer, entry
            elif (group.model, entry.method) not in told:
                told.add((group.model, entry.method))
                yield group.model, None, entry


def _entry_row(suite: str, model: str, quantizer: str | None, entry: Entry, board: Leaderboard) -> Row:
    notes = [note for note in board.notes if note.number in entry.notes]
    return {
        "suite": suite,
        "model": model,
        "quantizer": quantizer,
        "bits": entry.bits,
        "method": entry.method,
        "trained": entry.trained,
        "batch_norm": entry.batch_norm,
        "seeds": entry.seeds,
        "complete": entry.complete,
        **{status: entry.statuses.get(status, 0) for status in _STATUSES},
        "loss": entry.loss,
        **_interval("excess", entry.excess),
        **_regime(entry),
        **_interval("recovered", entry.recovered),
        "accuracy": entry.accuracy,
        **_interval("accuracy_change", entry.accuracy_change),
        "effective_bits": entry.effective_bits,
        "method_seconds": entry.method_seconds,
        "peak_memory_bytes": entry.peak_memory_bytes,
        "fallbacks": entry.fallbacks,
        "notes": "; ".join(f"{note.kind}: {note.reason}" for note in notes) or None,
        **_metrics(entry.metrics, ENTRY_COLUMNS),
    }


def _interval(name: str, interval: Interval | None) -> Row:
    if interval is None:
        return {}
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _regime(entry: Entry) -> Row:
    if entry.regime is None:
        return {}
    word = entry.regime.text.partition(" ")[0]
    inside = sum(one == word for one in entry.regime.per_seed)
    return {"regime": word, "regime_seeds": inside, "tau": entry.regime.tau, "tau_f": entry.regime.tau_f}


def _cells(suite: str, kind: str, records: Sequence[Record], places: Sequence[Axes]) -> list[Row]:
    held = newest(records)
    # Where the suite is not known nothing can be missing.
    expected = places or [record.axes for record in sorted(held.values(), key=_place)]
    return [_cell_row(suite, kind, axes, held.get(cell_label(dict(axes)))) for axes in expected]


def _place(record: Record) -> tuple[str, str, int, str, int]:
    axes = record.axes
    return (
        str(axes["model"]),
        str(axes["quantizer"] or ""),
        -int(axes["bits"] or 0),
        str(axes["method"]),
        int(axes["seed"] or 0),
    )


def _cell_row(suite: str, kind: str, axes: Axes, record: Record | None) -> Row:
    status, reason = outcome(axes, record)
    place: Row = {
        "suite": suite,
        "kind": kind,
        **{name: axes[name] for name in ("model", "quantizer", "bits", "method", "seed")},
        "status": status,
        "reason": reason,
    }
    if record is None:
        return place
    told = {
        "cell_id": record.cell_id,
        "loss": record.loss,
        "accuracy": record.accuracy,
        "effective_bits": record.effective_bits,
        **record.cost.model_dump(),
        "fallbacks": len(record.fallbacks),
        "fallback_reasons": "; ".join(dict.fromkeys(record.fallbacks)) or None,
        "weights_sha256": record.weights_sha256,
        "started": record.started or None,
        "ended": record.ended or None,
        **{name: record.environment.get(name) for name in ("device", "qbench")},
    }
    return place | told | _metrics(record.metrics, CELL_COLUMNS)


def _metrics(metrics: Mapping[str, float], fixed: Mapping[str, type]) -> Row:
    """Return metrics by their names; one that is called as a column of its own is told apart from that."""
    return {f"metric:{name}" if name in fixed else name: float(value) for name, value in metrics.items()}


def _completed(found: Sequence[Row], fixed: Mapping[str, type]) -> list[Row]:
    names = [*fixed, *sorted({name for row in found for name in row} - set(fixed))]
    return [{name: row.get(name) for name in names} for row in found]

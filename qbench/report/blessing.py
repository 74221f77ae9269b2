"""What blessing would change, for a terminal: the diff that one reviews before saying yes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qbench.report import numbers
from qbench.report.comparison import rows_table
from qbench.report.comparison_cells import fine
from qbench.report.fitting import noted_table, wrap
from qbench.store.blessing import Change
from qbench.store.tolerance_change import ToleranceChange
from qbench.store.verdict import ComparisonRow

SHOWN = 20
_HEADERS = ["on another ground", "old", "new", "cells"]
_FEW = 5
"""Degrees of freedom below which a t quantile is so large that a tolerance passes nearly everything."""


def render_change(change: Change, *, everything: bool = False) -> str:
    """Return the diff between the old and the new baseline as plain text, with a newline at its end.

    Parameters
    ----------
    change : Change
        What to show.
    everything : bool
        Show every row and every label, not the first twenty.
    """
    most = 10**9 if everything else SHOWN
    counts = ", ".join(f"{count} {kind}" for kind, count in change.counts.items()) or "another ground"
    first = "first baseline, " if change.first else ""
    parts = [wrap(f"{change.suite} on {change.device}: {first}{counts}")]
    if change.rows:
        table = rows_table(change.rows[:most])
        rest = len(change.rows) - most
        parts.append(table + (f"\n... and {rest} more" if rest > 0 else ""))
    if change.tolerances:
        rest = len(change.tolerances) - most
        more = f"\n... and {rest} more" if rest > 0 else ""
        shown = change.tolerances[:most]
        parts.append(noted_table(_HEADERS, [_tolerance(one) for one in shown], [_pool(one) for one in shown]) + more)
    lines = _moved(change.moved)
    lines += [] if change.first else _labels("new", change.added, most)
    lines += _labels("gone", change.gone, most)
    lines += [f"expected to fail from now on: {label} ({flaw})" for label, flaw in sorted(change.accepted.items())]
    lines += _labels("no longer expected to fail", change.released, most)
    if change.unrepeated and change.unrepeated < change.held:
        lines.append(f"{change.unrepeated} of {change.held} cells have no repeats of their own: `qbench repeat` first")
    if change.edited:
        lines.append("the old baseline was edited by hand since it was blessed: this is compared with the edited one")
    lines += [f"ground: {name}: {then} -> {now}" for name, (then, now) in change.environment.items()]
    parts.append("\n".join(map(wrap, lines)))
    return "\n\n".join(filter(None, parts)) + "\n"


def _moved(rows: Sequence[ComparisonRow]) -> list[str]:
    if not rows:
        return []
    deltas = [row.delta for row in rows if row.delta is not None]
    mean = fine(sum(deltas) / len(deltas), signed=True) if deltas else numbers.ABSENT
    first = f", most {fine(rows[0].delta, signed=True)} ({rows[0].label})" if rows[0].delta is not None else ""
    return [f"moved within the tolerance: {len(rows)} cells, on average {mean}{first}"]


def _labels(what: str, labels: Iterable[str], most: int) -> list[str]:
    found = list(labels)
    rest = [f"... and {len(found) - most} more {what}"] if len(found) > most else []
    return [f"{what}: {label}" for label in found[:most]] + rest


def _tolerance(one: ToleranceChange) -> list[str]:
    by = f"{'WIDER' if one.wider else 'narrower'} by {fine(abs(one.new - one.old))}"
    return [by, fine(one.old), fine(one.new), str(one.cells)]


def _pool(one: ToleranceChange) -> str:
    model, method, bits = one.pool
    of = f"{one.measure} of {model} {method}" + (f" {numbers.bits(bits)}" if bits is not None else "")
    if 0 < one.freedom < _FEW:
        return f"{of}; on {one.freedom} degrees of freedom: repeat more"
    return f"{of}; not repeated" if one.measure == "loss" and not one.freedom else of

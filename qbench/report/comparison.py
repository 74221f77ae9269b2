"""A comparison with the baseline, in words."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from qbench.report import numbers
from qbench.report.text import plain_table
from qbench.store.comparison import Comparison, ComparisonRow

SHOWN = 10
_HEADERS = ["verdict", "cell", "baseline", "now", "change", "tolerance", "note"]


def render_comparison(comparison: Comparison, *, everything: bool = False) -> str:
    """Return a comparison as plain text, worst first, with a newline at its end.

    Parameters
    ----------
    comparison : Comparison
        What to show.
    everything : bool
        Show every row, not the first ten.
    """
    parts = [_headline(comparison)]
    if comparison.rows:
        rows = [_row(row) for row in _shown(comparison, everything)]
        parts.append(plain_table(_HEADERS, rows, _ALIGN) + _rest(comparison, everything))
    if comparison.environment:
        parts.append("\n".join(textwrap.fill(line, 120, subsequent_indent="    ") for line in _ground(comparison)))
    return "\n\n".join(parts) + "\n"


def render_comparison_markdown(comparison: Comparison, *, everything: bool = False) -> str:
    """Return a comparison as Markdown; see `render_comparison`."""
    parts = [f"## {_headline(comparison)}"]
    if comparison.rows:
        rows = [[cell.replace("|", "\\|") for cell in _row(row)] for row in _shown(comparison, everything)]
        table = tabulate(rows, _HEADERS, "github", disable_numparse=True, colalign=_ALIGN)
        parts.append(table + _rest(comparison, everything).replace("\n", "\n\n"))
    if comparison.environment:
        parts.append("\n".join(f"- {line}" for line in _ground(comparison)))
    return "\n\n".join(parts) + "\n"


_ALIGN = ("left", "left", "right", "right", "right", "right", "left")


def _headline(comparison: Comparison) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items()) or "no cells"
    identical = sum(row.identical for row in comparison.rows)
    parts = [counts, f"{identical} with the same weights"] if identical else [counts]
    parts += [f"{comparison.left_out} cells of the baseline were not asked for"] if comparison.left_out else []
    outcome = "regressed" if comparison.regressed else "no regression"
    return f"{comparison.suite} against its baseline: {outcome} ({'; '.join(parts)})"


def _shown(comparison: Comparison, everything: bool) -> tuple[ComparisonRow, ...]:
    return comparison.rows if everything else comparison.rows[:SHOWN]


def _rest(comparison: Comparison, everything: bool) -> str:
    hidden = () if everything else comparison.rows[SHOWN:]
    kinds = ", ".join(
        f"{count} {verdict}"
        for verdict in comparison.counts
        if (count := sum(row.verdict == verdict for row in hidden))
    )
    return f"\n... and {len(hidden)} more: {kinds}" if hidden else ""


def _row(row: ComparisonRow) -> list[str]:
    notes = [row.note] if row.note else []
    notes += ["same weights"] if row.identical else []
    change = numbers.ABSENT if row.delta is None else numbers.signed(row.delta)
    sizes = [numbers.loss(row.old), numbers.loss(row.new), change, numbers.compact(row.tolerance)]
    return [row.verdict, row.label, *sizes, "; ".join(notes)]


def _ground(comparison: Comparison) -> list[str]:
    return [f"{name}: baseline {then}, now {now}" for name, (then, now) in comparison.environment.items()]

"""A comparison with the baseline, for a terminal."""

from __future__ import annotations

import textwrap

from qbench.report.comparison_cells import ALIGN, HEADERS, advice, blessable, cells_of, grounds, headline, kinds
from qbench.report.text import plain_table
from qbench.store.comparison import Comparison

SHOWN = 10


def render_comparison(comparison: Comparison, *, everything: bool = False, bless: str = "qbench bless") -> str:
    """Return a comparison as plain text, worst first, with a newline at its end.

    Parameters
    ----------
    comparison : Comparison
        What to show.
    everything : bool
        Show every row, not the first ten.
    bless : str
        The command that would make this run the baseline.
    """
    parts = [headline(comparison)]
    rows = (*comparison.seed_means, *comparison.rows)
    shown = rows if everything else rows[:SHOWN]
    if rows:
        hidden = rows[len(shown) :]
        rest = f"\n... and {len(hidden)} more: {kinds(comparison, hidden)}" if hidden else ""
        parts.append(plain_table(HEADERS, [cells_of(row) for row in shown], ALIGN) + rest)
    told = advice(comparison)
    lines = [*grounds(comparison), *told, *([f"to bless it: {bless}"] if blessable(comparison) else [])]
    if lines:
        parts.append("\n".join(textwrap.fill(line, 120, subsequent_indent="    ") for line in lines))
    return "\n\n".join(parts) + "\n"

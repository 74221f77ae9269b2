"""A comparison with the baseline, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.report.comparison_cells import HEADERS, advice, blessable, cells_of, grounds, headline, kinds
from qbench.report.fitting import noted_table, wrap
from qbench.report.numbers import ABSENT
from qbench.store.comparison import Comparison
from qbench.store.verdict import ComparisonRow

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
    parts = [wrap(headline(comparison))]
    rows = (*comparison.seed_means, *comparison.rows)
    shown = rows if everything else rows[:SHOWN]
    if rows:
        hidden = rows[len(shown) :]
        rest = f"\n... and {len(hidden)} more: {kinds(comparison, hidden)}" if hidden else ""
        parts.append(rows_table(shown) + rest)
    told = advice(comparison)
    lines = [*grounds(comparison), *told, *([f"to bless it: {bless}"] if blessable(comparison) else [])]
    if lines:
        parts.append("\n".join(map(wrap, lines)))
    return "\n\n".join(parts) + "\n"


def rows_table(rows: Sequence[ComparisonRow]) -> str:
    """Return rows as a table of numbers, each with its cell and what is to be known of it in a line below.

    Parameters
    ----------
    rows : sequence of ComparisonRow
        In the order in which they are shown.
    """
    told = [dict(zip(HEADERS, cells_of(row), strict=True)) for row in rows]
    notes = []
    for cells in told:
        recovery = "" if cells["recovery"] == ABSENT else f"recovery {cells['recovery']}"
        notes.append("; ".join(filter(None, (cells["cell"], recovery, cells["note"]))))
    headers = [name for name in HEADERS if name not in ("cell", "recovery", "note")]
    return noted_table(headers, [[cells[name] for name in headers] for cells in told], notes)

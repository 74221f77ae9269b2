"""A comparison with the baseline as a comment on a change: what changed, on which ground, and how to see it oneself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tabulate import tabulate

from qbench.report.comparison_cells import (
    ALIGN,
    HEADERS,
    advice,
    blessable,
    blocked,
    cells_of,
    grounds,
    headline,
    kinds,
)
from qbench.store.comparison import Comparison

MOST_ROWS = 50
MOST_CHARACTERS = 60_000
"""Of a whole comment: a little less than what the places where comments are put take."""

_LONGEST = 300
_LONGEST_COMMAND = 2000
_MOST_LINES = 20
_UNCHANGED = ("same", "expected")


def render_comparison_markdown(comparison: Comparison, *, run: str = "qbench run", bless: str = "qbench bless") -> str:
    """Return a comparison as Markdown, of changed cells only and never above `MOST_CHARACTERS`.

    The first line is a comment that names the suite, by which an earlier comment can be found and replaced.

    Parameters
    ----------
    comparison : Comparison
        What to show.
    run, bless : str
        The commands that make the run again, and that would make it the baseline.
    """
    changed = [row for row in comparison.rows if row.verdict not in _UNCHANGED or comparison.red(row)]
    rows = [*comparison.seed_means, *(row for row in changed if row.verdict != "blocked")]
    for most in (MOST_ROWS, 10, 0):
        parts = [f"{marker(comparison.suite)}\n## {_escape(headline(comparison))}"]
        if shown := rows[:most]:
            table = [[_escape(cell) for cell in cells_of(row)] for row in shown]
            parts.append(tabulate(table, HEADERS, "github", disable_numparse=True, colalign=ALIGN))
        if hidden := rows[most:]:
            parts.append(f"... and {len(hidden)} more: {kinds(comparison, hidden)}")
        parts += [*_list(blocked(changed)), *_list(grounds(comparison)), *_list(advice(comparison))]
        parts.append(_commands(run, bless if blessable(comparison) or "new" in comparison.counts else None))
        parts.append(_unchanged(comparison))
        page = "\n\n".join(parts) + "\n"
        if len(page) < MOST_CHARACTERS:
            break
    return page


def marker(suite: str) -> str:
    """Return the line that a comment on a suite begins with; a reader does not see it."""
    name = re.sub(r"[^\w. -]", "_", suite)
    return f"<!-- qbench: {name[:_LONGEST]} -->"


def _commands(run: str, bless: str | None) -> str:
    # Here and not among the lines above, where a command would have to be escaped.
    commands = [_one_line(command)[:_LONGEST_COMMAND] for command in (run, bless) if command is not None]
    title = "To run it again" + (", and to make it the baseline:" if bless else ":")
    return "\n".join([title, "", "```sh", *commands, "```"])


def _unchanged(comparison: Comparison) -> str:
    same = [row for row in comparison.rows if row.verdict == "same" and not comparison.red(row)]
    expected = [row for row in comparison.rows if row.verdict == "expected"]
    lines = [f"{len(same)} the same, {sum(row.identical for row in same)} of them with the same weights"]
    lines += [f"expected to fail: {row.label} ({row.note})" for row in expected]
    if comparison.left_out:
        lines.append(f"{comparison.left_out} cells of the baseline were not asked for")
    title = f"{len(same) + len(expected)} cells unchanged"
    return "\n\n".join([f"<details><summary>{title}</summary>", *_list(lines), "</details>"])


def _list(lines: Sequence[str]) -> list[str]:
    shown = [*lines[:_MOST_LINES], *([f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])]
    return ["\n".join(f"- {_escape(line)}" for line in shown)] if shown else []


def _escape(text: str) -> str:
    short = _one_line(text)
    short = short if len(short) <= _LONGEST else short[: _LONGEST - 3] + "..."
    # A reason may quote what a stranger's plugin said: neither markup nor a mention may come of it.
    return short.replace("|", "\\|").replace("<", "&lt;").replace("@", "&#64;").replace("![", "&#33;[")


def _one_line(text: str) -> str:
    return " ".join(text.split())

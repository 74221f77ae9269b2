"""The leaderboard as a Markdown page, kept in git beside the baseline it belongs to."""

from __future__ import annotations

import re

from tabulate import tabulate

from qbench.report.layout import Table
from qbench.report.leaderboard import Leaderboard
from qbench.report.outline import made, outline


def render_markdown(board: Leaderboard, *, command: str | None = None) -> str:
    """Return the leaderboard as Markdown, headed by how it was made.

    Parameters
    ----------
    board : Leaderboard
        What to show.
    command : str, optional
        What makes the page anew; by default ``qbench run --suite`` with the suite's name.
    """
    by = command or f"qbench run --suite {board.suite}"
    parts = [f"# {board.suite}", "\n".join([f"- Made by: `{by}`", *(f"- {line}" for line in made(board))])]
    parts += [_list(board.summary)] if board.summary else []
    for section in outline(board):
        parts.append(f"## {escape(section.title)}")
        parts += [_list(section.lines)] if section.lines else []
        parts += map(_github, section.tables)
    return "\n\n".join(parts) + "\n"


def _list(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _github(table: Table) -> str:
    cells = [[escape(cell) for cell in row] for row in table.rows]
    align = ["left"] * table.keys + ["right"] * (len(table.headers) - table.keys)
    return tabulate(cells, headers=table.headers, tablefmt="github", disable_numparse=True, colalign=align)


def escape(text: str) -> str:
    """Return text as Markdown shows it in a table."""
    return re.sub("<(?!=)", "&lt;", text.replace("|", "\\|"))  # no tag begins with <=

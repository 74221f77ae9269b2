"""Reports for people: plain text, 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from qbench.conformance.contract import Report, Row

WIDTH = 80
_HEADERS = ("property", "result", "detail")


def render(report: Report) -> str:
    """Return the table of a report's rows, and its verdict in the last line."""
    return f"{table(report.rows)}\n\n{report.verdict()}"


def table(rows: Sequence[Row]) -> str:
    """Return rows under headers; long details go on in their own column."""
    cells = [_HEADERS, *((row.property, row.result, row.detail) for row in rows)]
    first, second = (max(len(row[column]) for row in cells) for column in (0, 1))
    indent = " " * (first + second + 4)
    lines = []
    for name, result, detail in cells:
        parts = textwrap.wrap(detail, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{name:{first}}  {result:{second}}  {parts[0]}", *(indent + part for part in parts[1:])]
    return "\n".join(line.rstrip() for line in lines)

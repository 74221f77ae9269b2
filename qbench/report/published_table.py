"""The table of a run beside published numbers, and its notes: what all pages share."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.report.layout import Table
from qbench.report.numbers import ABSENT
from qbench.report.published import Published

TITLE = "beside published numbers"

_MEANING = (
    "here/there: the mean over seeds over the published number; with `ratio` both are taken over full precision, for "
    "sources that measure on other text. agrees: within the share that the suite allows; no cell fails by it."
)


def published_table(rows: Sequence[Published]) -> Table:
    """Return a row for each published number; the last column names its source by number."""
    sources = _sources(rows)
    return Table(
        ["cell", "metric", "there", "here", "here/there", "allowed", "verdict", "source"],
        [
            [
                row.cell,
                row.metric if row.compare == "value" else f"{row.metric}, ratio",
                _number(row.there),
                _number(row.here),
                ABSENT if row.quotient is None else f"{row.quotient:.3g}",
                f"{row.within:.0%}".replace("%", " %"),
                row.verdict,
                f"[{sources.index((row.source, row.note)) + 1}]",
            ]
            for row in rows
        ],
        keys=1,
    )


def published_notes(rows: Sequence[Published]) -> list[str]:
    """Return the numbered sources, and how to read the table; nothing where nothing is published."""
    if not rows:
        return []
    sources = (
        f"[{number}] {source}{f'; {note}' if note else ''}" for number, (source, note) in enumerate(_sources(rows), 1)
    )
    return [*sources, _MEANING]


def _sources(rows: Sequence[Published]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.source, row.note) for row in rows))


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"

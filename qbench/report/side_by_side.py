"""The quantizers of a model side by side, bitwidth by bitwidth, the best of them first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.layout import Table, incomplete
from qbench.report.leaderboard import Group, Leaderboard


def side_by_side(board: Leaderboard) -> list[tuple[str, list[Table]]]:
    """Return for each model with more than one quantizer at a bitwidth its tables, one a bitwidth.

    Parameters
    ----------
    board : Leaderboard
        Of any suite.

    Returns
    -------
    list of (str, list of Table)
        The model, and tables with a row a quantizer: bits a weight really takes, and the excess loss of each method,
        of image classifiers behind its accuracy. Rows are ordered by the least excess, of image classifiers by the
        highest accuracy; quantizers that have nothing complete come last, in the suite's order, and those that the
        suite skips at a bitwidth are left out of its table.
    """
    models: dict[str, list[Group]] = {}
    for group in board.groups:
        if group.bits:
            models.setdefault(group.model, []).append(group)
    beside = [(model, list(_tables(groups))) for model, groups in models.items() if len(groups) > 1]
    return [(model, tables) for model, tables in beside if tables]


def _tables(groups: Sequence[Group]) -> Iterator[Table]:
    for width in sorted({width for group in groups for width in group.bits}, reverse=True):
        there = [group for group in groups if any(_is_wanted(row.get(width)) for row in group.rows.values())]
        methods = list(dict.fromkeys(method for group in there for method, row in group.rows.items() if width in row))
        ordered = sorted(there, key=lambda group: _merit(group, width))
        headers = [numbers.bits(width), "eff.bits", *methods]
        rows = [
            [
                str(group.quantizer),
                _stored(group, width),
                *(_score(group.rows.get(name, {}).get(width)) for name in methods),
            ]
            for group in ordered
        ]
        if len(rows) > 1:
            yield Table(headers, rows, keys=1)


def _is_wanted(entry: Entry | None) -> bool:
    # A quantizer that the suite skips at a bitwidth, such as one without a grid of so many bits, has no row there.
    return entry is not None and set(entry.statuses) != {"skipped"}


def _merit(group: Group, width: int) -> tuple[float, float]:
    """Return what rows are ordered by, the best first: accuracy, where there is one, then excess loss."""
    entries = [row[width] for row in group.rows.values() if width in row]
    scores = [-entry.accuracy for entry in entries if entry.accuracy is not None]
    excess = [entry.excess.mean for entry in entries if entry.excess is not None]
    return min(scores, default=0.0), min(filter(math.isfinite, excess), default=math.inf)


def _stored(group: Group, width: int) -> str:
    entries = [row[width] for row in group.rows.values() if width in row]
    found = [entry.effective_bits for entry in entries if entry.effective_bits is not None]
    return f"{found[0]:.2f}" if found else numbers.ABSENT


def _score(entry: Entry | None) -> str:
    if entry is None:
        return ""
    marks = "".join(f"({number})" for number in entry.notes)
    parts = [f"{numbers.percent(entry.accuracy)} %"] if entry.accuracy is not None else []
    parts += [numbers.signed(entry.excess.mean)] if entry.excess is not None else []
    return " ".join([*(parts or [incomplete(entry)]), *([marks] if marks else [])])

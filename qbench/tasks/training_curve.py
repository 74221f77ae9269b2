"""The training curve of a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

_ROWS = 8

Row = Mapping[str, float]


def curve_table(curve: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]) -> str:
    """Return some rows of a training curve as a Markdown table: evenly spaced ones, and always the last.

    Parameters
    ----------
    curve : sequence of mapping
        See `qbench.tasks.pretrain.Progress`.
    columns : mapping of str to callable
        By title; ``text(row)`` is what stands in the column. ``step`` is always the first.
    """
    count = min(_ROWS, len(curve))
    shown = [curve[index * (len(curve) - 1) // max(1, count - 1)] for index in range(count)]
    rows = [[f"{row['step']:.0f}", *(text(row) for text in columns.values())] for row in shown]
    return tabulate(rows, headers=["step", *columns], tablefmt="github")

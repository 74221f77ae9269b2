"""Results as CSV (RFC 4180, but for its line ends), for spreadsheets and other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qbench.report.tidy import Value, table
from qbench.store.floats import spell

if TYPE_CHECKING:
    from qbench.report.run import Run

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render_csv(runs: Sequence[Run], *, cells: bool) -> str:
    """Return results as CSV: a line of column names, then a line a row; see `tidy.table`.

    Parameters
    ----------
    runs : sequence of Run
        One after the other; the column ``suite`` tells them apart.
    cells : bool
        Return a row a cell, and not one an entry of the leaderboard.

    Notes
    -----
    Numbers have as many digits as give the same number when they are read. What was not measured is empty, NaN and
    infinities are spelled ``NaN``, ``Infinity`` and ``-Infinity``, truth values ``true`` and ``false``. Words that a
    spreadsheet would take for a formula (a reason that begins with ``=``, say) get an apostrophe before them.
    """
    columns, rows = table(runs, cells=cells)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_word(row[name]) for name in columns] for row in rows)
    return text.getvalue()


def _word(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return repr(value) if isinstance(spelled := spell(value), float) else str(spelled)

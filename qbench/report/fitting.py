"""Words and tables that fit a terminal of 80 columns: wrapped, or in parts one below the other."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from qbench.report.layout import Table, split

WIDTH = 80
_KEY_WIDTHS = (56, 48, 40, 32)
_NARROWEST = 12
_WHOLE = 28
_LEAST = 8
_WITHIN = "  "


def wrap(text: str, width: int = WIDTH, *, indent: str = "    ") -> str:
    """Return text in lines of at most `width` characters; a name too long for one goes on in the next.

    Parameters
    ----------
    text : str
        One paragraph.
    width : int
        The most that a line may have.
    indent : str
        What lines but the first begin with.
    """
    return _Lines(width, subsequent_indent=indent, break_on_hyphens=False).fill(text)


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """Return a table with a rule under its headers and no space at line ends.

    Parameters
    ----------
    headers : sequence of str
        One a column; of one or more lines, as are the cells.
    rows : sequence of sequence of str
        As wide as `headers`.
    align : sequence of str
        ``left`` or ``right``, one a column.
    """
    # As headers, tabulate would pad them by two columns each.
    rule = ["-" * max(map(_width, column)) for column in zip(headers, *rows, strict=True)]
    body = [headers, rule, *rows]
    text = tabulate(body, tablefmt="plain", disable_numparse=True, colalign=align, preserve_whitespace=True)
    return "\n".join(line.rstrip() for line in text.splitlines())


def noted_table(headers: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], width: int = WIDTH) -> str:
    """Return a table of short cells, each row with a line of words below it.

    Parameters
    ----------
    headers : sequence of str
        One a column; the first is words, and to the left.
    rows : sequence of sequence of str
        As wide as `headers`.
    notes : sequence of str
        One a row: the name of what it is about, say, and what is to be known of it.
    width : int
        The most that a line of words may have.
    """
    align = ["left", *["right"] * (len(headers) - 1)]
    header, rule, *lines = plain_table(headers, rows, align).split("\n")
    told = [wrap(_WITHIN + note, width, indent=_WITHIN * 2) for note in notes]
    return "\n".join([header, rule, *(part for pair in zip(lines, told, strict=True) for part in pair)])


def flow(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Return a table of words, its widest columns wrapped to what there is room for.

    Parameters
    ----------
    headers : sequence of str
        One a column.
    rows : sequence of sequence of str
        As wide as `headers`.
    width : int
        The most that a line may have.
    """
    narrow = _squeezed(Table(list(headers), [list(row) for row in rows], keys=len(headers)), width)
    return plain_table(narrow.headers, narrow.rows, ["left"] * len(headers))


def fit(table: Table, align: Sequence[str], width: int = WIDTH) -> str:
    """Return a table as plain text, in parts one below the other where it is too wide, with its keys in each.

    Parameters
    ----------
    table : Table
        What to show. Keys that are long, reasons in place of numbers, and headers wider than what is below them go on
        in a second line of their row.
    align : sequence of str
        ``left`` or ``right``, one a column.
    width : int
        The most that a line may have.
    """
    parts, at = [], table.keys
    for part in split(_wrapped(table, width), lambda one: _total(one) <= width):
        columns = len(part.headers) - table.keys
        aligned = [*align[: table.keys], *align[at : at + columns]]
        narrow = _squeezed(_there(part) if columns < len(table.headers) - table.keys else part, width)
        parts.append(plain_table(narrow.headers, narrow.rows, aligned))
        at += columns
    return "\n\n".join(parts)


class _Lines(textwrap.TextWrapper):
    def _split(self, text: str) -> list[str]:
        most = self.width - len(self.subsequent_indent)
        return [part for word in super()._split(text) for part in (_breaks(word) if len(word) > most else [word])]


def _wrapped(table: Table, width: int) -> Table:
    """Return a table that fits as one, or failing that one with cells as narrow as they go."""
    if _total(table) <= width:
        return table
    for most in _KEY_WIDTHS:
        columns = [
            tuple(wrap(cell, most, indent=_WITHIN) for cell in column) if at < table.keys else _headed(column)
            for at, column in enumerate(zip(table.headers, *table.rows, strict=True))
        ]
        if _total(_of(columns, table.keys)) <= width:
            break
    worded = [at for at in range(table.keys, len(columns)) if any(", " in cell for cell in columns[at])]
    narrow = _of(columns, table.keys)
    for most in range(max((_widest(columns[at]) for at in worded), default=0), _NARROWEST - 1, -1):
        if _total(narrow) <= width:
            break
        # What stands in place of a number need not make its column wider than numbers do.
        cut = [_reworded(column, most) if at in worded else column for at, column in enumerate(columns)]
        narrow = _of(cut, table.keys)
    return narrow


def _headed(column: Sequence[str]) -> tuple[str, ...]:
    header, *cells = column
    most = max([_NARROWEST, *map(_width, cells), *map(len, _breaks(header))])
    return (wrap(header, most, indent=""), *cells)


def _reworded(column: Sequence[str], most: int) -> tuple[str, ...]:
    least = max((len(cell) for cell in column if ", " not in cell), default=0)
    least = max(least, *(len(word) for cell in column for word in cell.split(" ")))
    return tuple(wrap(cell, max(most, least), indent="") if ", " in cell else cell for cell in column)


def _there(part: Table) -> Table:
    """Return one of several parts without the rows that have nothing in it."""
    rows = [row for row in part.rows if any(row[part.keys :])]
    return Table(part.headers, rows or part.rows, part.keys)


def _squeezed(table: Table, width: int) -> Table:
    """Return a table with the cells of its widest columns wrapped, so that it is narrow enough."""
    columns = list(zip(table.headers, *table.rows, strict=True))
    widths = _shares(columns, width - 2 * (len(columns) - 1))
    cut = [tuple(_narrow(cell, most) for cell in column) for column, most in zip(columns, widths, strict=True)]
    return _of(cut, table.keys)


def _shares(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return how wide each column may be: all that are cut equally, words whole where that is possible."""
    natural = [_widest(column) for column in columns]
    for whole in (_WHOLE, 0):
        least = [min(whole, _longest(column)) for column in columns]
        for most in range(max(natural), _LEAST - 1, -1):
            widths = [min(one, max(most, word)) for one, word in zip(natural, least, strict=True)]
            if sum(widths) <= room:
                return widths
    return [min(one, _LEAST) for one in natural] if sum(natural) > room else natural


def _longest(column: Sequence[str]) -> int:
    return max((len(part) for cell in column for word in cell.split() for part in _breaks(word)), default=0)


def _narrow(cell: str, most: int) -> str:
    if _width(cell) <= most:
        return cell
    # What goes on of a name is set off from the next name; of a sentence it need not be.
    indent = "" if " " in cell.strip() else _WITHIN
    return "\n".join(wrap(line, most, indent=indent) for line in cell.split("\n"))


def _of(columns: Sequence[Sequence[str]], keys: int) -> Table:
    headers, *rows = (list(row) for row in zip(*columns, strict=True))
    return Table(headers, rows, keys)


def _total(table: Table) -> int:
    widths = [_widest(column) for column in zip(table.headers, *table.rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def _widest(column: Sequence[str]) -> int:
    return max(map(_width, column))


def _width(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def _breaks(word: str) -> list[str]:
    """Return the parts of a name between which a line may end: before a bracket, after a comma or a slash."""
    return [part for part in re.split(r"(?<=[,/;])|(?=\[)", word) if part]

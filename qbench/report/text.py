"""The leaderboard for a terminal: plain text, 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from qbench.report.landscape_sheet import Sheet, meanings
from qbench.report.layout import Table, chance, counts, footnotes, legend, tables
from qbench.report.leaderboard import Group, Leaderboard
from qbench.report.side_by_side import side_by_side

WIDTH = 120
LANDSCAPE_WIDTH = 100


def render_text(board: Leaderboard) -> str:
    """Return the leaderboard as plain text, with a newline at its end.

    Parameters
    ----------
    board : Leaderboard
        What to show; nothing of it is left out but digits.
    """
    parts = [f"{board.suite}: {counts(board)}"]
    parts += [_sheet(one) for one in board.landscapes]
    told = meanings(board.landscapes)
    parts += ["\n".join(_wrap(line, LANDSCAPE_WIDTH) for line in told)] if told else []
    networks = board.of_networks
    parts += [block for group in networks.groups for block in _group(group)]
    for model, beside in side_by_side(networks):
        first, *others = map(_fit, beside)
        parts += [f"== {model}: quantizers side by side ==\n{first}", *others]
    meaning = [*legend(networks), f"interval: {board.interval}."] if networks.groups or not board.landscapes else []
    closing = ["\n".join(map(_wrap, meaning))] if meaning else []
    notes = footnotes(board)
    closing += ["\n".join(_wrap(note) for note in notes)] if notes else []
    closing += ["\n".join(_wrap(line) for line in board.summary)] if board.summary else []
    return "\n\n".join(parts + closing) + "\n"


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """Return a table with a rule under its headers and no space at line ends.

    Parameters
    ----------
    headers : sequence of str
        One a column.
    rows : sequence of sequence of str
        As wide as `headers`.
    align : sequence of str
        ``left`` or ``right``, one a column.
    """
    # As headers, tabulate would pad them by two columns each.
    rule = ["-" * max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    text = tabulate([headers, rule, *rows], tablefmt="plain", disable_numparse=True, colalign=align)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _group(group: Group) -> list[str]:
    facts = group.facts
    seeds = max((entry.seeds for row in group.rows.values() for entry in row.values()), default=0)
    says = [
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}" if seeds else "",
        f"{int(facts['parameters']):,} parameters" if facts.get("parameters", "").isdigit() else "",
        f"chance: {guess}" if (guess := chance(group)) else "",
        f"{facts['quantized_layers']} layers quantized" if "quantized_layers" in facts else "",
        f"{facts['batch_norm_layers']} batch norms" if "batch_norm_layers" in facts else "",
        f"in floating point: {facts['floating_point']}" if "floating_point" in facts else "",
        f"grid: {facts['grid']}" if "grid" in facts else "",
        f"activations: {facts['activations']}" if "activations" in facts else "",
        f"plugins: {facts['plugins']}" if "plugins" in facts else "",
    ]
    title = _wrap(f"== {group.title} ==  " + "; ".join(part for part in says if part))
    blocks = [_fit(table) for table in tables(group) if table.rows]
    return [f"{title}\n{blocks[0]}", *blocks[1:]] if blocks else [title]


def _sheet(sheet: Sheet) -> str:
    title = _wrap(f"== {sheet.title} ==" + (f"  {sheet.says}" if sheet.says else ""), LANDSCAPE_WIDTH)
    table = plain_table(sheet.columns, sheet.words(), ["left"] * len(sheet.columns))
    return f"{title}\n{table}"


def _fit(table: Table) -> str:
    """Return a table, in two or more parts one below the other where it is too wide."""
    text = plain_table(table.headers, table.rows, ["left"] * len(table.headers) if table.keys == 1 else _align(table))
    columns = len(table.headers) - table.keys
    if columns < 2 or max(map(len, text.splitlines())) <= WIDTH:
        return text
    middle = table.keys + (columns + 1) // 2
    rest = [[*row[: table.keys], *row[middle:]] for row in table.rows]
    return "\n\n".join(
        (
            _fit(Table(table.headers[:middle], [row[:middle] for row in table.rows], table.keys)),
            _fit(Table([*table.headers[: table.keys], *table.headers[middle:]], rest, table.keys)),
        )
    )


def _align(table: Table) -> list[str]:
    return ["right", *["left"] * (table.keys - 1), *["right"] * (len(table.headers) - table.keys)]


def _wrap(line: str, width: int = WIDTH) -> str:
    return textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)

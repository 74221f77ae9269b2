"""The leaderboard for a terminal: plain text, 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qbench.report.fitting import WIDTH, fit, wrap
from qbench.report.landscape_sheet import Sheet, meanings
from qbench.report.layout import Table, chance, counts, footnotes, identified, legend, tables
from qbench.report.leaderboard import Group, Leaderboard
from qbench.report.published_table import TITLE, published_notes, published_table
from qbench.report.short_names import explained, shorten
from qbench.report.side_by_side import side_by_side


def render_text(board: Leaderboard, width: int = WIDTH) -> str:
    """Return the leaderboard as plain text, with a newline at its end.

    Parameters
    ----------
    board : Leaderboard
        What to show; nothing of it is left out but digits.
    width : int
        Characters of a line.
    """
    names = shorten(entry.method for group in board.of_networks.groups for entry in group.entries)
    networks = replace(board.of_networks, groups=tuple(_renamed(group, names) for group in board.of_networks.groups))
    parts = [wrap(f"{board.suite}: {counts(board)}", width)]
    parts += [_sheet(one, width) for one in board.landscapes]
    said = meanings(board.landscapes)
    parts += ["\n".join(wrap(line, width) for line in said)] if said else []
    parts += [block for group in networks.groups for block in _group(group, width)]
    for model, beside in side_by_side(networks):
        blocks = [fit(table, _align(table), width) for table in beside]
        parts += ["\n".join([wrap(f"== {model}: quantizers side by side ==", width), blocks[0]]), *blocks[1:]]
    if board.published:
        table = published_table(board.published)
        told = [f"== {TITLE} ==", fit(table, _align(table), width)]
        parts.append("\n".join([*told, *(wrap(note, width) for note in published_notes(board.published))]))
    shown = networks.groups or not board.landscapes
    meaning = [*explained(names), *legend(networks, levels=False), f"interval: {board.interval}."] if shown else []
    for lines in (meaning, footnotes(board), board.summary):
        parts += ["\n".join(wrap(line, width) for line in lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _group(group: Group, width: int) -> list[str]:
    facts = group.facts
    seeds = max((entry.seeds for row in group.rows.values() for entry in row.values()), default=0)
    says = [
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}" if seeds else "",
        f"{int(facts['parameters']):,} parameters" if facts.get("parameters", "").isdigit() else "",
        f"weights: {facts['weights']}" if "weights" in facts else "",
        f"in {facts['dtype']}" if "dtype" in facts else "",
        f"chance: {guess}" if (guess := chance(group)) else "",
        f"{facts['quantized_layers']} layers quantized" if "quantized_layers" in facts else "",
        f"{facts['batch_norm_layers']} batch norms" if "batch_norm_layers" in facts else "",
        f"in floating point: {facts['floating_point']}" if "floating_point" in facts else "",
        f"grid: {facts['grid']}" if "grid" in facts else "",
        f"activations: {facts['activations']}" if "activations" in facts else "",
        f"plugins: {facts['plugins']}" if "plugins" in facts else "",
    ]
    title = wrap(f"== {group.title} ==  " + "; ".join(part for part in says if part), width)
    blocks = [fit(table, _align(table), width) for table in tables(group, levels=False) if table.rows]
    return [f"{title}\n{blocks[0]}", *blocks[1:]] if blocks else [title]


def _sheet(sheet: Sheet, width: int) -> str:
    title = wrap(f"== {sheet.title} ==" + (f"  {sheet.says}" if sheet.says else ""), width)
    table = identified(Table(list(sheet.columns), sheet.words(), keys=1))
    return f"{title}\n{fit(table, ['left'] * len(table.headers), width)}"


def _renamed(group: Group, names: Mapping[str, str]) -> Group:
    """Return a group whose methods are called by their short names."""
    rows = {
        names[method]: {width: replace(entry, method=names[method]) for width, entry in row.items()}
        for method, row in group.rows.items()
    }
    controls = {names[method]: replace(entry, method=names[method]) for method, entry in group.controls.items()}
    return replace(group, rows=rows, controls=controls)


def _align(table: Table) -> list[str]:
    if table.keys == 1:
        return ["left"] * len(table.headers)
    return ["right", *["left"] * (table.keys - 1), *["right"] * (len(table.headers) - table.keys)]

"""The leaderboard as a Markdown page, kept in git beside the baseline it belongs to."""

from __future__ import annotations

from tabulate import tabulate

from qbench.report.landscape_sheet import meanings
from qbench.report.layout import Table, chance, counts, footnotes, legend, tables
from qbench.report.leaderboard import Group, Leaderboard
from qbench.report.side_by_side import side_by_side

_FACTS = (
    "parameters",
    "quantized_layers",
    "quantized_parameters",
    "batch_norm_layers",
    "floating_point",
    "grid",
    "activations",
    "plugins",
    "calibration",
    "evaluation",
)


def render_markdown(board: Leaderboard, *, command: str | None = None) -> str:
    """Return the leaderboard as Markdown, headed by how it was made.

    Parameters
    ----------
    board : Leaderboard
        What to show.
    command : str, optional
        What makes the page anew; by default ``qbench run --suite`` with the suite's name.
    """
    parts = [f"# {board.suite}", "\n".join(_header(board, command or f"qbench run --suite {board.suite}"))]
    parts += ["\n".join(f"- {_escape(line)}" for line in board.summary)] if board.summary else []
    for sheet in board.landscapes:
        table = Table(list(sheet.columns), sheet.words(), keys=1)
        parts += [f"## {_escape(sheet.title)}", *([f"- {_escape(sheet.says)}"] if sheet.says else []), _github(table)]
    networks = board.of_networks
    for model, beside in side_by_side(networks):
        parts += [f"## {_escape(model)}: quantizers side by side", *map(_github, beside)]
    for group in networks.groups:
        parts += [f"## {_escape(group.title)}", *_facts(group)]
        parts += [_github(table) for table in tables(group) if table.rows]
    meaning = meanings(board.landscapes)
    if networks.groups or not board.landscapes:
        meaning += [*legend(networks), f"interval: {board.interval}."]
    parts += ["## How to read it", "\n".join(f"- {_escape(line) if board.landscapes else line}" for line in meaning)]
    notes = footnotes(board)
    parts += ["## Notes", "\n".join(f"- {_escape(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def _header(board: Leaderboard, command: str) -> list[str]:
    ground = board.environment
    versions = ", ".join(f"{name} {ground[name]}" for name in ("qbench", "python", "torch") if name in ground)
    dates = sorted({board.started[:10], board.ended[:10]} - {""})
    return [
        f"- Made by: `{command}`",
        f"- Versions: {versions or 'not recorded'}",
        f"- Device: {ground.get('device', 'not recorded')}",
        f"- Records of: {' to '.join(dates) or 'no date'} (UTC)",
        f"- Result of {counts(board)}",
    ]


def _facts(group: Group) -> list[str]:
    lines = [f"- chance: {guess}"] if (guess := chance(group)) else []
    lines += [f"- {name.replace('_', ' ')}: {_escape(group.facts[name])}" for name in _FACTS if name in group.facts]
    return ["\n".join(lines)] if lines else []


def _github(table: Table) -> str:
    cells = [[_escape(cell) for cell in row] for row in table.rows]
    align = ["left"] * table.keys + ["right"] * (len(table.headers) - table.keys)
    return tabulate(cells, headers=table.headers, tablefmt="github", disable_numparse=True, colalign=align)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")

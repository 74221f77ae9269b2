"""What a page about a leaderboard has to say, in order: the sections that Markdown and LaTeX share."""

from __future__ import annotations

from dataclasses import dataclass

from qbench.report.landscape_sheet import meanings
from qbench.report.layout import Table, chance, counts, footnotes, legend, tables
from qbench.report.leaderboard import Group, Leaderboard
from qbench.report.published_table import TITLE, published_notes, published_table
from qbench.report.side_by_side import side_by_side

_FACTS = (
    "parameters",
    "weights",
    "dtype",
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


@dataclass(frozen=True)
class Section:
    """A part of a page under one title.

    Attributes
    ----------
    title : str
        As it is, nothing escaped.
    lines : tuple of str
        A list of short statements.
    tables : tuple of Table
        Below these.
    """

    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def made(board: Leaderboard) -> list[str]:
    """Return on what ground the records were made, when, and how many cells ended how."""
    ground = board.environment
    versions = ", ".join(f"{name} {ground[name]}" for name in ("qbench", "python", "torch") if name in ground)
    dates = sorted({board.started[:10], board.ended[:10]} - {""})
    return [
        f"Versions: {versions or 'not recorded'}",
        f"Device: {ground.get('device', 'not recorded')}",
        f"Records of: {' to '.join(dates) or 'no date'} (UTC)",
        f"Result of {counts(board)}",
    ]


def outline(board: Leaderboard) -> list[Section]:
    """Return the sections of a page: landscapes, quantizers side by side, each group, how to read it, and notes.

    Parameters
    ----------
    board : Leaderboard
        What to show; of its summary and of what `made` tells there is nothing here.
    """
    networks = board.of_networks
    sections = [
        Section(one.title, (one.says,) if one.says else (), (Table(list(one.columns), one.words(), keys=1),))
        for one in board.landscapes
    ]
    sections += [
        Section(f"{model}: quantizers side by side", (), tuple(beside)) for model, beside in side_by_side(networks)
    ]
    sections += [
        Section(group.title, tuple(_facts(group)), tuple(table for table in tables(group) if table.rows))
        for group in networks.groups
    ]
    if board.published:
        said = tuple(published_notes(board.published))
        sections.append(Section(TITLE.capitalize(), said, (published_table(board.published),)))
    meaning = meanings(board.landscapes)
    if networks.groups or not board.landscapes:
        meaning += [*legend(networks), f"interval: {board.interval}."]
    sections.append(Section("How to read it", tuple(meaning)))
    notes = footnotes(board)
    return [*sections, Section("Notes", tuple(notes))] if notes else sections


def _facts(group: Group) -> list[str]:
    lines = [f"chance: {guess}"] if (guess := chance(group)) else []
    return lines + [f"{name.replace('_', ' ')}: {group.facts[name]}" for name in _FACTS if name in group.facts]

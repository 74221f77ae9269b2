"""What figures of a leaderboard have in common: models, the methods that are drawn, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from qbench.report.entries import Entry, find_rounding, is_rounding
from qbench.report.figures.axes import round_numbers
from qbench.report.figures.estimates import Estimate
from qbench.report.figures.figure import Bars, Figure, Panel
from qbench.report.figures.naming import file_names, plainest, short
from qbench.report.figures.paging import MOST_PANELS, brief
from qbench.report.figures.theme import Style, looks_of_methods
from qbench.report.leaderboard import Group, Leaderboard

Frame = TypeVar("Frame", Panel, Bars)

MOST_METHODS = 8  # in one frame
_ABLATIONS = frozenset({"latent_grad", "noise_grad", "random_grad", "ft_then_ptq"})


@dataclass(frozen=True)
class Shelf:
    """All groups of one model.

    Attributes
    ----------
    model : str
        Its label.
    name, file : str
        The label in short, and as a part of a file's name.
    groups : tuple of Group
        One a quantizer; those come first on whose grids the best method loses least at the fewest bits.
    """

    model: str
    name: str
    file: str
    groups: tuple[Group, ...]

    @cached_property
    def methods(self) -> list[str]:
        """Return the labels of the methods that are drawn, in the order of the suite: the plain ones, no ablations.

        Of too many those that lose least, and rounding.
        """
        return plainest(self._all, MOST_METHODS, self._rank)

    def _rank(self, label: str) -> float:
        rows = [group.rows[label] for group in self.groups if label in group.rows]
        lost = [excess.mean for row in rows if (excess := row[min(row)].excess) is not None]
        return -math.inf if is_rounding(label) else sum(lost) / len(lost) if lost else math.inf

    @cached_property
    def _all(self) -> list[str]:
        return [
            label
            for label in dict.fromkeys(label for group in self.groups for label in group.rows)
            if label.partition("[")[0] not in _ABLATIONS
        ]

    @cached_property
    def looks(self) -> dict[str, Style]:
        """Return how methods look; hollow: those that train the model."""
        names = short(self._all)
        trained = {
            label
            for group in self.groups
            for label, row in group.rows.items()
            if any(entry.trained for entry in row.values())
        }
        return looks_of_methods({label: (names[label], label in trained) for label in self._all})

    @cached_property
    def quantizers(self) -> dict[str, str]:
        """Return the quantizers' labels as panels name them."""
        return {str(group.quantizer): brief(str(group.quantizer)) for group in self.groups}

    @property
    def seeds(self) -> str:
        """Return over how many seeds means are, in words."""
        most = max(entry.seeds for group in self.groups for row in group.rows.values() for entry in row.values())
        return "One seed." if most == 1 else f"Mean over {most} seeds."

    @property
    def undrawn(self) -> str:
        """Return how many methods are not drawn, in words; empty where all are."""
        every = {label for group in self.groups for label in group.rows}
        count = len(every) - len(self.methods)
        return f"{count} more {'methods are' if count > 1 else 'method is'} in the table." if count else ""


def shelves(board: Leaderboard) -> list[Shelf]:
    """Return the models of a leaderboard that have quantized rows; landscapes are not among them."""
    held: dict[str, list[Group]] = {}
    for group in board.of_networks.groups:
        if group.bits:
            held.setdefault(group.model, []).append(group)
    names, files = short(held), file_names(held)
    return [
        Shelf(model, names[model], files[model], tuple(sorted(groups, key=_best))) for model, groups in held.items()
    ]


def _best(group: Group) -> tuple[bool, float, str]:
    lowest = [row[group.bits[-1]] for row in group.rows.values() if group.bits[-1] in row]
    found = [entry.excess.mean for entry in lowest if entry.excess is not None]
    return (not found, min(found, default=0.0), group.title)


def rounding_of(group: Group) -> dict[int, Entry]:
    """Return the row of round-to-nearest; empty where there is none."""
    name = find_rounding(group.rows)
    return {} if name is None else group.rows[name]


def low_bits(group: Group) -> list[int]:
    """Return the bits at which rounding is not inside the basin, falling; where it is not known, all."""
    rounded = rounding_of(group)
    return [
        width
        for width in group.bits
        if width not in rounded or (regime := rounded[width].regime) is None or regime.mean != "inside"
    ]


def unfinished(entries: Iterable[Entry]) -> str:
    """Return how many entries lack a seed or a comparison, in words; empty where none does.

    What a suite skips is not asked for.
    """
    lacking = sum(entry.excess is None and set(entry.statuses) != {"skipped"} for entry in entries)
    if not lacking:
        return ""
    return f"Not drawn: {lacking} {'entries that lack' if lacking > 1 else 'entry that lacks'} a seed or a comparison."


def intervals(found: Iterable[Estimate], covers: Iterable[str]) -> str:
    """Return what whiskers are, in words; empty where there are none."""
    return covered(covers) if any(one.bounded for one in found) else ""


def covered(covers: Iterable[str]) -> str:
    """Return what intervals are over, in words, from `Interval.covers` of each; empty where there are none."""
    over = set(covers) - {"nothing"}
    if over == {"documents", "documents and seeds"}:
        return " Whiskers: 95 % intervals over documents, and seeds where there are several."
    return f" Whiskers: 95 % intervals over {'; '.join(sorted(over))}." if over else ""


def told_of(entry: Entry) -> tuple[tuple[str, str], ...]:
    """Return what a tooltip says of an entry beside its place."""
    told = []
    if entry.excess is not None and len(entry.excess.per_seed) > 1:
        told.append(("each seed", ", ".join(f"{value:.3g}" for value in entry.excess.per_seed)))
    if entry.regime is not None:
        told.append(("regime", entry.regime.text))
    if entry.effective_bits is not None:
        told.append(("bits with scales", f"{entry.effective_bits:.2f}"))
    return tuple(told)


def same_ends(panels: Sequence[Panel]) -> list[Panel]:
    """Return panels whose vertical axes have the same ends and ticks where they show the same, to be held together."""
    ends: dict[str, list[float]] = {}
    for panel in panels:
        ends.setdefault(panel.y.title, []).extend(_reach(panel))
    return [_with_ends(panel, ends[panel.y.title]) for panel in panels]


def own_ends(panel: Panel) -> Panel:
    """Return a panel whose vertical axis has ticks that suit what it shows."""
    return _with_ends(panel, _reach(panel))


def _with_ends(panel: Panel, reach: Sequence[float]) -> Panel:
    if not reach:
        return panel
    low, high = min(reach), max(reach)
    return replace(panel, y=replace(panel.y, low=low, high=high, ticks=round_numbers(low, high, panel.y.constant)))


def _reach(panel: Panel) -> list[float]:
    """Return every height that has to be seen in a panel."""
    estimates = [one for trend in panel.trends for one in trend.estimates]
    found = [end for one in estimates for end in (one.y, one.low, one.high) if end is not None]
    found += [y for guide in panel.guides for y in guide.y]
    return found + [level.value for level in panel.levels if level.axis == "y"]


def in_rows(frames: Mapping[tuple[int, int], Frame]) -> list[Frame]:
    """Return frames in the order in which two columns show like beside like.

    Parameters
    ----------
    frames : mapping of (int, int) to Panel or Bars
        By quantizer and bits. Of an odd number of bitwidths the fewest bits come first.
    """
    if len({bits for _, bits in frames}) % 2:
        return [frames[place] for place in sorted(frames, key=lambda place: (place[1], place[0]))]
    return [frames[place] for place in sorted(frames, key=lambda place: (place[0], -place[1]))]


def spread_pages(
    name: str,
    title: str,
    of: str,
    notes: Sequence[str],
    panels: Sequence[Panel | Bars],
    looks: dict[str, Style],
    most: int = MOST_PANELS,
) -> list[Figure]:
    """Return a figure, or several where there are too many frames for one.

    Parameters
    ----------
    name, title, of, notes
        See `Figure`; the second figure is called ``name_2``.
    panels : sequence of Panel or Bars
        In the order they are drawn; empty ones are left out.
    looks
        See `Figure`.
    most : int
        Frames a figure.
    """
    kept = [panel for panel in panels if not panel.empty]
    pages = [kept[start : start + most] for start in range(0, len(kept), most)]
    return [
        Figure(
            name if number == 1 else f"{name}_{number}",
            title if len(pages) == 1 else f"{title} ({number} of {len(pages)})",
            of,
            tuple(note for note in notes if note),
            tuple(page),
            min(2, len(page)),
            looks,
        )
        for number, page in enumerate(pages, start=1)
    ]

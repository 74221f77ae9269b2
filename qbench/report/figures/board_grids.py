"""Bits paid against loss: which grids no other is both smaller and better than."""

from __future__ import annotations

from dataclasses import replace

from qbench.report.entries import Entry
from qbench.report.figures.axes import change_axis
from qbench.report.figures.board_pareto import front
from qbench.report.figures.board_parts import Shelf, intervals, own_ends, spread_pages, told_of, unfinished
from qbench.report.figures.estimates import Estimate, Front, Trend
from qbench.report.figures.figure import Axis, Figure, Panel
from qbench.report.figures.paging import MOST_PANELS

_SIZE = (620, 330)
_LEAST = 3  # grids of a method: two have a front that says nothing


def grids(shelf: Shelf) -> list[Figure]:
    """Return what is lost on each grid by the bits that a weight takes, a frame a method; only where grids are many."""
    if len(shelf.groups) <= MOST_PANELS:
        return []
    panels = []
    drawn: list[Entry] = []
    for method in shelf.methods:
        held = [
            (f"{shelf.quantizers[str(group.quantizer)]} {width}b", entry)
            for group in shelf.groups
            for width, entry in sorted(group.rows.get(method, {}).items())
        ]
        places = {name: one for name, entry in held if (one := _place(name, entry)) is not None}
        if len(places) >= _LEAST:
            drawn += [entry for _, entry in held]
            panels.append(_panel(shelf, method, places))
    estimates = [one for panel in panels for trend in panel.trends for one in trend.estimates]
    notes = [
        "A point a grid and bitwidth. Bits a weight takes: with scales, zero points and codebooks. Line: the front, "
        "which no other grid is both smaller and better than."
        + intervals(estimates, [entry.excess.covers for entry in drawn if entry.excess is not None]),
        " ".join(part for part in (unfinished(drawn), shelf.undrawn) if part),
    ]
    title = f"{shelf.name}: what is lost against the bits a weight takes"
    found = spread_pages(f"grids_{shelf.file}", title, shelf.seeds, notes, panels, shelf.looks)
    return [replace(figure, columns=1, size=_SIZE) for figure in found]


def _place(name: str, entry: Entry) -> Estimate | None:
    if entry.effective_bits is None or entry.excess is None:
        return None
    excess = entry.excess
    told = (("grid", name), *told_of(entry))
    return Estimate(entry.effective_bits, excess.mean, excess.low, excess.high, entry.seeds, told)


def _panel(shelf: Shelf, method: str, places: dict[str, Estimate]) -> Panel:
    best = front([(one.x, one.y) for one in places.values()])
    # Of grids that are the same at some bits one has the word.
    words = {(one.x, one.y): name for name, one in sorted(places.items(), key=lambda item: (-len(item[0]), item[0]))}
    trends = tuple(
        Trend(
            method,
            (one,),
            name if (one.x, one.y) in best and words[one.x, one.y] == name else "",
            faint=(one.x, one.y) not in best,
        )
        for name, one in places.items()
    )
    x, y = zip(*best, strict=True)
    panel = Panel(
        shelf.looks[method].label,
        Axis("bits a weight takes", "log"),
        change_axis("excess loss D over fp (nats)", None),
        (),
        joined=False,
        trends=trends,
        fronts=(Front("front", x, y),),
    )
    return own_ends(panel)

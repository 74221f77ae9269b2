"""Quality against cost: which methods no other is both better and faster than."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.figures.axes import change_axis
from qbench.report.figures.board_parts import (
    Shelf,
    in_rows,
    intervals,
    low_bits,
    own_ends,
    spread_pages,
    told_of,
    unfinished,
)
from qbench.report.figures.estimates import Estimate, Front, Trend
from qbench.report.figures.figure import Axis, Figure, Panel
from qbench.report.figures.places import counted
from qbench.report.leaderboard import Group

_LEAST = 3  # methods: two have a front that says nothing


def paretos(shelf: Shelf) -> list[Figure]:
    """Return what each method loses by its seconds, a frame a quantizer and bitwidth at which rounding loses."""
    panels: dict[tuple[int, int], Panel] = {}
    drawn: list[Entry] = []
    for number, group in enumerate(shelf.groups):
        for width in low_bits(group):
            entries = {label: group.rows[label][width] for label in shelf.methods if width in group.rows.get(label, {})}
            places = {label: one for label, entry in entries.items() if (one := _place(group, entry)) is not None}
            if len(places) >= _LEAST:
                drawn += entries.values()
                panels[number, width] = _panel(shelf, group, width, places)
    estimates = [one for panel in panels.values() for trend in panel.trends for one in trend.estimates]
    covers = [entry.excess.covers for entry in drawn if entry.excess is not None]
    notes = [
        "Line: the front, which no other method is both better and faster than; behind it points are faint. Filled: "
        "PTQ; hollow: QAT. Seconds of the method alone, on the machine that ran it." + intervals(estimates, covers),
        " ".join(part for part in (unfinished(drawn), _timeless(drawn), shelf.undrawn) if part),
    ]
    title = f"{shelf.name}: what is lost against what the method takes"
    return spread_pages(f"pareto_{shelf.file}", title, shelf.seeds, notes, in_rows(panels), shelf.looks)


def _timeless(drawn: Sequence[Entry]) -> str:
    """Return how many entries a logarithmic axis of seconds has no place for, in words; empty where there are none."""
    count = sum(entry.excess is not None and not entry.method_seconds for entry in drawn)
    return f"Not drawn: {count} that took no measurable time." if count else ""


def front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other is as good as in both numbers and better in one; less is better.

    Parameters
    ----------
    places : sequence of (float, float)
        Any order.

    Returns
    -------
    list of (float, float)
        Distinct, the first number rising and the second falling.
    """
    found: list[tuple[float, float]] = []
    for cost, loss in sorted(set(places)):
        if not found or loss < found[-1][1]:
            found.append((cost, loss))
    return found


def _place(group: Group, entry: Entry) -> Estimate | None:
    if entry.method_seconds is None or entry.method_seconds <= 0 or entry.excess is None:
        return None
    told = (("seconds", numbers.seconds(entry.method_seconds)), *told_of(entry))
    change = entry.accuracy_change
    if group.of_images and change is not None:
        low, high = (None if end is None else -100 * end for end in (change.high, change.low))
        return Estimate(entry.method_seconds, -100 * change.mean, low, high, entry.seeds, told)
    excess = entry.excess
    return Estimate(entry.method_seconds, excess.mean, excess.low, excess.high, entry.seeds, told)


def _panel(shelf: Shelf, group: Group, width: int, places: dict[str, Estimate]) -> Panel:
    best = front([(one.x, one.y) for one in places.values()])
    lost = Axis("accuracy lost (points)", "symlog", constant=1.0)
    trends = tuple(
        Trend(label, (one,), shelf.looks[label].label, faint=(one.x, one.y) not in best)
        for label, one in places.items()
    )
    x, y = zip(*best, strict=True)
    panel = Panel(
        f"{shelf.quantizers[str(group.quantizer)]}, {counted(width)}",
        Axis("seconds of the method", "log"),
        lost if group.of_images else change_axis("excess loss D over fp (nats)", None),
        (),
        joined=False,
        trends=trends,
        fronts=(Front("front", x, y),),
    )
    return own_ends(panel)

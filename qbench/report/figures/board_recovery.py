"""Recovery: how much of what rounding loses each method does away with."""

from __future__ import annotations

from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.figures.board_parts import Shelf, spread_pages, told_of, unfinished
from qbench.report.figures.estimates import Bar
from qbench.report.figures.figure import Axis, Bars, Figure, Level
from qbench.report.figures.places import counted
from qbench.report.leaderboard import Group

_LEAST = -1.0  # the frame's lower end: how much worse than rounding does not matter; the number is beside the bar
_FEW = 2  # methods beside rounding: then grids are what is compared


def recoveries(shelf: Shelf) -> list[Figure]:
    """Return G of each method, a frame a quantizer and bitwidth at which rounding is outside the basin."""
    by_method: list[Bars] = []
    by_grid: dict[tuple[int, str], list[Bar]] = {}
    drawn: list[Entry] = []
    for group in shelf.groups:
        for width in group.bits:
            entries = {label: group.rows[label][width] for label in shelf.methods if width in group.rows.get(label, {})}
            if not any(entry.recovered is not None for entry in entries.values()):
                continue
            drawn += entries.values()
            bars = {label: bar for label, entry in entries.items() if (bar := _bar(shelf, label, entry)) is not None}
            by_method.append(_frame(f"{shelf.quantizers[str(group.quantizer)]}, {counted(width)}", list(bars.values())))
            for label, bar in bars.items():
                by_grid.setdefault((width, label), []).append(_renamed(bar, shelf, group))
    covers = {entry.recovered.covers for entry in drawn if entry.recovered is not None} - {"nothing"}
    notes = [
        "G = 1 - D / D(rtn), only where rounding is outside the basin. 0: no better than rounding; 1: full precision. "
        "Filled: PTQ; hollow: QAT."
        + (f" Whiskers: 95 % intervals over {'; '.join(sorted(covers))}." if covers else ""),
        " ".join(part for part in (unfinished(drawn), shelf.undrawn) if part),
    ]
    few = max((len(frame.bars) for frame in by_method), default=0) <= _FEW < len(by_method)
    panels = by_method
    if few:
        panels = [
            _frame(f"{shelf.looks[label].label}, {counted(width)}", bars)
            for (width, label), bars in sorted(by_grid.items(), key=lambda item: item[0][0])
        ]
    title = f"{shelf.name}: how much of rounding's loss is won back"
    return spread_pages(f"recovery_{shelf.file}", title, shelf.seeds, notes, panels, shelf.looks)


def _frame(title: str, bars: list[Bar]) -> Bars:
    lowest = min((bar.low if bar.low is not None else bar.value for bar in bars), default=0.0)
    low = max(_LEAST, min(0.0, lowest))
    axis = Axis("share of rounding's excess loss won back, G", low=low, high=1.0)
    return Bars(title, axis, tuple(bars), (Level("x", 0.0),))


def _bar(shelf: Shelf, label: str, entry: Entry) -> Bar | None:
    won = entry.recovered
    if won is None:
        return None
    text = numbers.share(won.mean)
    return Bar(shelf.looks[label].label, label, won.mean, won.low, won.high, text, told_of(entry))


def _renamed(bar: Bar, shelf: Shelf, group: Group) -> Bar:
    name = shelf.quantizers[str(group.quantizer)]
    return Bar(name, bar.series, bar.value, bar.low, bar.high, bar.text, bar.told)

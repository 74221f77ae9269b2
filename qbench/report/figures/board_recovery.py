"""Recovery: how much of what rounding loses each method does away with."""

from __future__ import annotations

from dataclasses import replace

from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.figures.board_parts import Shelf, covered, in_rows, spread_pages, told_of, unfinished
from qbench.report.figures.estimates import Bar
from qbench.report.figures.figure import Axis, Bars, Figure, Level
from qbench.report.figures.places import counted

_WIDTH, _NARROW, _LETTER = 390, 190, 5.5  # pixels: of a frame with its names, of the frame alone at least, of a letter
_LEAST, _MOST = (
    -1.0,
    1.5,
)  # the frame's ends: how much worse than rounding does not matter; the number is beside the bar


def recoveries(shelf: Shelf) -> list[Figure]:
    """Return G of each method, a frame a quantizer and bitwidth at which rounding is outside the basin."""
    of_methods: dict[tuple[int, int], list[Bar]] = {}
    drawn: list[Entry] = []
    for number, group in enumerate(shelf.groups):
        for width in group.bits:
            entries = {label: group.rows[label][width] for label in shelf.methods if width in group.rows.get(label, {})}
            bars = [bar for label, entry in entries.items() if (bar := _bar(shelf, label, entry)) is not None]
            if bars:
                drawn += entries.values()
                of_methods[number, width] = bars
    lone = _lone(of_methods)
    frames = {
        (number, width): _frame(f"{_grid(shelf, number)}, {counted(width)}", bars)
        for (number, width), bars in of_methods.items()
        if (width, bars[0].series) not in lone or len(bars) > 1
    }
    of_grids = [
        _frame(f"{shelf.looks[label].label}, {counted(width)}", [_renamed(bar, _grid(shelf, at)) for at, bar in found])
        for (width, label), found in sorted(lone.items())
    ]
    notes = [
        "G = 1 - D / D(rtn), only where rounding is outside the basin. 0: no better than rounding; 1: full precision. "
        "Filled: PTQ; hollow: QAT." + covered(entry.recovered.covers for entry in drawn if entry.recovered is not None),
        " ".join(part for part in (unfinished(drawn), shelf.undrawn) if part),
    ]
    panels = [*in_rows(frames), *of_grids]
    title = f"{shelf.name}: how much of rounding's loss is won back"
    figures = spread_pages(f"recovery_{shelf.file}", title, shelf.seeds, notes, panels, shelf.looks)
    longest = max((len(bar.name) for frame in panels for bar in frame.bars), default=0)
    # Long names take their room from the bars: the words of wide figures are small where a page is narrow.
    width = max(_NARROW, _WIDTH - round(_LETTER * longest))
    return [replace(figure, size=(width, 0)) for figure in figures]


def _lone(of_methods: dict[tuple[int, int], list[Bar]]) -> dict[tuple[int, str], list[tuple[int, Bar]]]:
    """Return bars that are the only ones of their grid, by bits and method, where several grids have the same alone.

    There grids are what is compared.
    """
    found: dict[tuple[int, str], list[tuple[int, Bar]]] = {}
    for (number, width), bars in of_methods.items():
        if len(bars) == 1:
            found.setdefault((width, bars[0].series), []).append((number, bars[0]))
    return {place: held for place, held in found.items() if len(held) > 1}


def _grid(shelf: Shelf, number: int) -> str:
    return shelf.quantizers[str(shelf.groups[number].quantizer)]


def _frame(title: str, bars: list[Bar]) -> Bars:
    lowest = min((bar.low if bar.low is not None else bar.value for bar in bars), default=0.0)
    highest = max((bar.high if bar.high is not None else bar.value for bar in bars), default=1.0)
    low, high = max(_LEAST, min(0.0, lowest)), min(_MOST, max(1.0, highest))
    axis = Axis("share of rounding's excess loss won back, G", low=low, high=high)
    return Bars(title, axis, tuple(bars), (Level("x", 0.0),))


def _bar(shelf: Shelf, label: str, entry: Entry) -> Bar | None:
    won = entry.recovered
    if won is None:
        return None
    text = numbers.share(won.mean)
    return Bar(shelf.looks[label].label, label, won.mean, won.low, won.high, text, told_of(entry))


def _renamed(bar: Bar, name: str) -> Bar:
    return replace(bar, name=name)

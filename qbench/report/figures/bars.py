"""A frame of horizontal bars as Vega-Lite has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import LITERAL, Layer, Row, axis, layer, rounded, tooltips, word
from qbench.report.figures.estimates import Bar
from qbench.report.figures.figure import Bars

_ROW = 19  # pixels a bar


def bars(frame: Bars, styles: Mapping[str, theme.Style], width: int) -> dict[str, Any]:
    """Return the specification of a frame of bars.

    Parameters
    ----------
    frame : Bars
        Any.
    styles : mapping of str to Style
        How series look.
    width : int
        Pixels; the height is what bars take.
    """
    rows = [_row(bar) for bar in frame.bars]
    names = [bar.name for bar in frame.bars]
    y = {
        "field": "name",
        "type": "nominal",
        "scale": {"domain": names, "paddingInner": 0.3, "paddingOuter": 0.2},
        "axis": {
            "title": None,
            "grid": False,
            "ticks": False,
            "domain": False,
            "labelLimit": 250,
            "labels": frame.named,
        },
    }
    told = {"name": "of", "x": f"{frame.x.title}#", **({"interval": "95 % interval"} if _bounded(frame) else {})}
    told |= {name: name for bar in frame.bars for name, _ in bar.told}
    looks = {styles[one.series] for one in frame.bars}
    bar: dict[str, Any] = {"strokeWidth": 1.5, "clip": True}
    literal: dict[str, Any] = {}
    if len(looks) == 1:
        bar |= dict(zip(("stroke", "fill"), _colours(*looks), strict=True))
    else:
        literal = {channel: {"field": channel, **LITERAL} for channel in ("stroke", "fill")}
        for row, one in zip(rows, frame.bars, strict=True):
            row |= dict(zip(("stroke", "fill"), _colours(styles[one.series]), strict=True))
    layers = [layer("bar", rows, bar, x2={"datum": 0}, **literal, tooltip=tooltips(told)), *_whiskers(frame)]
    for level in frame.levels:
        line = [{"x": level.value}]
        across: dict[str, Any] = {"y": {"value": 0}, "y2": {"value": "height"}}
        layers.append(layer("rule", line, {"color": theme.SOFT, "strokeWidth": 1.2}, **across))
    if any(one.text for one in frame.bars):
        beside = [{"y": one.name, "name": one.text} for one in frame.bars]
        at = {"x": {"value": "width"}, "y": {"field": "y", "type": "nominal"}}
        layers.append(word(beside, theme.INK, {"align": "left", "dx": 7}, **at))
    return {"width": width, "height": {"step": _ROW}, "encoding": {"x": axis("x", frame.x), "y": y}, "layer": layers}


def _bounded(frame: Bars) -> bool:
    return any(bar.low is not None and bar.high is not None for bar in frame.bars)


def _whiskers(frame: Bars) -> list[Layer]:
    rows: list[Row] = [
        {"name": bar.name, "x": rounded(bar.low), "end": rounded(bar.high)}
        for bar in frame.bars
        if bar.low is not None and bar.high is not None
    ]
    # On a lighter one, so that they are seen on bars of any colour.
    looks = ({"color": theme.GROUND, "strokeWidth": 4}, {"color": theme.INK, "strokeWidth": 1.4})
    return [layer("rule", rows, {**how, "clip": True}, x2={"field": "end"}) for how in looks] if rows else []


def _colours(style: theme.Style) -> tuple[str, str]:
    """Return the colours of outline and filling."""
    return style.colour, theme.GROUND if style.hollow else style.colour


def _row(bar: Bar) -> Row:
    row: Row = {"name": bar.name, "x": rounded(bar.value), **dict(bar.told)}
    if bar.low is not None and bar.high is not None:
        row["interval"] = f"{bar.low:.4g} to {bar.high:.4g}"
    return row

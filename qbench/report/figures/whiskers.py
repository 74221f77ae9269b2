"""Layers of estimates: lines through them, whiskers for their intervals, and the front."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import LITERAL, Layer, Row, layer, look, rounded, tooltips
from qbench.report.figures.estimates import Estimate, Trend
from qbench.report.figures.figure import Panel
from qbench.report.figures.words import words_beside

_APART = 0.009  # of the frame, between trends at one place, so that whiskers do not hide each other
_OPACITY = {"type": "quantitative", "scale": None, "legend": None}
_FAINT = 0.6


def trends(panel: Panel, styles: Mapping[str, theme.Style], size: tuple[int, int]) -> list[Layer]:
    """Return the layers of all trends of a panel and of its fronts.

    Parameters
    ----------
    panel : Panel
        Any.
    styles : mapping of str to Style
        How series look.
    size : (int, int)
        Of the frame, pixels.
    """
    held = [(trend, _rows(panel, trend, styles[trend.series])) for trend in panel.trends]
    rows = [row for _, found in held for row in found]
    if not rows:
        return []
    layers = _fronts(panel)
    if panel.joined:
        for trend, found in held:
            style = styles[trend.series]
            how = {"color": style.colour, "strokeDash": list(style.dash), "strokeWidth": 1.7, "clip": True}
            layers.append(layer("line", [{"x": row["x"], "y": row["y"]} for row in found], how))
    if ends := [end for trend, _ in held for end in _ends(panel, trend, styles[trend.series])]:
        literal = {"color": {"field": "colour", **LITERAL}, "opacity": {"field": "opacity", **_OPACITY}}
        rule = {"strokeWidth": 1.4, "clip": True}
        layers.append(layer("rule", ends, rule, y2={"field": "end"}, **literal))
    extra = {name: name for trend in panel.trends for one in trend.estimates for name, _ in one.told}
    told = {"series": "series", "at": f"{panel.x.title}#", "y": f"{panel.y.title}#"}
    told |= {"interval": "95 % interval"} if ends else {}
    point = {"filled": False, "size": 50, "strokeWidth": 1.5, "clip": True}
    named = any(trend.label for trend in panel.trends)
    channels = {**look(styles, legend=not named), "opacity": {"field": "opacity", **_OPACITY}}
    layers.append(layer("point", rows, point, **channels, tooltip=tooltips({**told, "seeds": "seeds", **extra})))
    return layers + words_beside(panel, size)


def _rows(panel: Panel, trend: Trend, style: theme.Style) -> list[Row]:
    rows = []
    for one in trend.estimates:
        if not (panel.x.shows(one.x) and panel.y.shows(one.y)):
            continue
        row: Row = {"series": style.label, "x": _moved(panel, trend, one.x), "at": rounded(one.x), "y": rounded(one.y)}
        row |= {"opacity": _FAINT if trend.faint else 1, "seeds": one.seeds, **dict(one.told)}
        if one.low is not None and one.high is not None:
            row["interval"] = f"{one.low:.4g} to {one.high:.4g}"
        rows.append(row)
    return rows


def _moved(panel: Panel, trend: Trend, x: float) -> float:
    """Return a place moved to the side where trends have their points at the same ones."""
    ends = panel.x.ticks
    if not panel.joined or not ends or min(ends) == max(ends):
        return rounded(x)
    place = panel.trends.index(trend) - (len(panel.trends) - 1) / 2
    if panel.x.falling:
        place = -place
    if panel.x.scale == "log":
        return rounded(x * math.exp(place * _APART * math.log(max(ends) / min(ends))))
    return rounded(x + place * _APART * (max(ends) - min(ends)))


def _ends(panel: Panel, trend: Trend, style: theme.Style) -> list[Row]:
    return [
        {
            "x": _moved(panel, trend, one.x),
            "y": rounded(low),
            "end": rounded(high),
            "colour": style.colour,
            "opacity": _FAINT if trend.faint else 1,
        }
        for one in trend.estimates
        if (ends := _shown(panel, one)) is not None
        for low, high in [ends]
    ]


def _shown(panel: Panel, one: Estimate) -> tuple[float, float] | None:
    if one.low is None or one.high is None or not panel.x.shows(one.x) or not panel.y.shows(one.y):
        return None
    return (one.low, one.high) if panel.y.shows(one.low) and panel.y.shows(one.high) else None


def _fronts(panel: Panel) -> list[Layer]:
    how: dict[str, Any] = {"interpolate": "step-after", "color": theme.SOFT, "strokeWidth": 1.3, "clip": True}
    return [
        layer("line", [{"x": rounded(x), "y": rounded(y)} for x, y in zip(front.x, front.y, strict=True)], how)
        for front in panel.fronts
    ]

"""Layers of estimates: lines through them, whiskers for their intervals, the front, and bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import altair, axis, chart, frame, look, rounded, tooltips
from qbench.report.figures.estimates import Bar, Estimate, Trend
from qbench.report.figures.figure import Bars, Panel

_APART = 0.045  # of trends on an axis of whole numbers, so that whiskers do not hide each other
_FAINT = 0.4
_ROW = 19  # pixels a bar


def trends(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Any]:
    """Return the layers of all trends of a panel and of its fronts."""
    alt = altair()
    rows = [row for trend in panel.trends for row in _rows(panel, trend, styles)]
    if not rows:
        return []
    literal: dict[str, Any] = {"scale": None, "legend": None}
    colour = alt.Color("colour:N", **literal)
    layers = _fronts(panel)
    if panel.joined:
        # Colours and dashes that are no encodings of the series, which would bring lines into the legend.
        lines = (
            chart(rows)
            .mark_line(strokeWidth=1.8, clip=True)
            .encode(
                **frame(panel),
                detail="series:N",
                order="place:Q",
                color=colour,
                strokeDash=alt.StrokeDash("dash:N", **literal),
            )
        )
        layers.append(lines)
    if bounded := [row for row in rows if "low" in row]:
        ends = chart(bounded).mark_rule(strokeWidth=1.4, clip=True)
        layers.append(ends.encode(**frame(panel, y="low"), y2=alt.Y2("high:Q"), color=colour, opacity=_opacity()))
    points = chart(rows).mark_point(filled=False, size=50, strokeWidth=1.5, clip=True)
    extra = list(dict.fromkeys(name for trend in panel.trends for one in trend.estimates for name, _ in one.told))
    told = tooltips(
        ("series", "N", "series"),
        ("at", "Q", panel.x.title),
        ("y", "Q", panel.y.title),
        *([("interval", "N", "95 % interval")] if bounded else []),
        ("seeds", "Q", "seeds"),
        *((name, "N", name) for name in extra),
    )
    layers.append(points.encode(**frame(panel), **look(styles), opacity=_opacity(), tooltip=told))
    return layers + _names(panel, rows)


def _opacity() -> Any:
    return altair().Opacity("opacity:Q", scale=None, legend=None)


def _rows(panel: Panel, trend: Trend, styles: Mapping[str, theme.Style]) -> list[dict[str, Any]]:
    style = styles[trend.series]
    aside = _aside(panel, trend)
    look_of = {
        "series": style.label,
        "colour": style.colour,
        "opacity": _FAINT if trend.faint else 1,
        **({"dash": list(style.dash)} if panel.joined else {}),
    }
    rows = []
    for place, one in enumerate(trend.estimates):
        if panel.x.shows(one.x) and panel.y.shows(one.y):
            where = {"x": rounded(one.x + aside), "y": rounded(one.y), "at": rounded(one.x), "place": place}
            rows.append({**look_of, **where, "seeds": one.seeds, **_ends(panel, one), **dict(one.told)})
    return rows


def _aside(panel: Panel, trend: Trend) -> float:
    """Return how far a trend is moved to the side on an axis of whole numbers."""
    if not panel.x.falling:
        return 0.0
    place = panel.trends.index(trend) - (len(panel.trends) - 1) / 2
    span = max(panel.x.ticks, default=1.0) - min(panel.x.ticks, default=0.0)
    return -place * _APART * max(span, 1.0) / 6


def _ends(panel: Panel, one: Estimate) -> dict[str, Any]:
    if one.low is None or one.high is None or not (panel.y.shows(one.low) and panel.y.shows(one.high)):
        return {}
    return {"low": rounded(one.low), "high": rounded(one.high), "interval": f"{one.low:.4g} to {one.high:.4g}"}


def _fronts(panel: Panel) -> list[Any]:
    layers = []
    for front in panel.fronts:
        rows = [{"x": rounded(x), "y": rounded(y)} for x, y in zip(front.x, front.y, strict=True)]
        steps = chart(rows).mark_line(interpolate="step-after", color=theme.SOFT, strokeWidth=1.3, clip=True)
        layers.append(steps.encode(**frame(panel)))
    return layers


def _names(panel: Panel, rows: list[dict[str, Any]]) -> list[Any]:
    last = {trend.label: trend for trend in panel.trends if trend.label}
    named = [
        {"x": rounded(one.x), "y": rounded(one.y), "name": name}
        for name, trend in last.items()
        for one in trend.estimates[-1:]
        if panel.x.shows(one.x) and panel.y.shows(one.y)
    ]
    if not named:
        return []
    text = chart(named).mark_text(dx=8, dy=-7, align="left", fontSize=10, font=theme.FONT, color=theme.INK)
    return [text.encode(**frame(panel), text="name:N")]


def bars(frame_of: Bars, styles: Mapping[str, theme.Style], width: int) -> Any:
    """Return the chart of bars, a row each, of some width in pixels."""
    alt = altair()
    rows = [_bar(frame_of, bar, styles[bar.series]) for bar in frame_of.bars]
    names = [bar.name for bar in frame_of.bars]
    y = alt.Y(
        "name:N",
        scale=alt.Scale(domain=names, paddingInner=0.3, paddingOuter=0.2),
        axis=alt.Axis(title=None, grid=False, ticks=False, domain=False, labelLimit=230, labelPadding=6),
    )
    x, literal = axis(alt.X, "x:Q", frame_of.x), {"scale": None, "legend": None}
    told = tooltips(
        ("name", "N", "method"),
        ("x", "Q", frame_of.x.title),
        ("interval", "N", "95 % interval"),
        *((name, "N", name) for name in dict.fromkeys(n for bar in frame_of.bars for n, _ in bar.told)),
    )
    base = chart(rows)
    layers = [
        base.mark_bar(strokeWidth=1.5, clip=True).encode(
            x=x,
            x2=alt.datum(0),
            y=y,
            stroke=alt.Stroke("colour:N", **literal),
            fill=alt.Fill("filling:N", **literal),
            tooltip=told,
        )
    ]
    if bounded := [row for row in rows if "low" in row]:
        whiskers = chart(bounded).mark_rule(color=theme.INK, strokeWidth=1.4, clip=True)
        layers.append(whiskers.encode(x=axis(alt.X, "low:Q", frame_of.x), x2=alt.X2("high:Q"), y=y))
    for level in frame_of.levels:
        line = chart([{"x": level.value, "name": level.name}])
        layers.append(line.mark_rule(color=theme.SOFT, strokeWidth=1.2).encode(x=x))
        if level.name:
            text = line.mark_text(dy=-6, fontSize=10, font=theme.FONT, color=theme.SOFT)
            layers.append(text.encode(x=x, y=alt.value(0), text="name:N"))
    if any(bar.text for bar in frame_of.bars):
        text = base.mark_text(align="left", dx=7, fontSize=10, font=theme.FONT, color=theme.INK)
        layers.append(text.encode(x=alt.value("width"), y=y, text="text:N"))
    return alt.layer(*layers).properties(width=width, height=alt.Step(_ROW))


def _bar(frame_of: Bars, bar: Bar, style: theme.Style) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": bar.name,
        "x": rounded(bar.value),
        "colour": style.colour,
        "filling": theme.GROUND if style.hollow else style.colour,
        "text": bar.text,
        **dict(bar.told),
    }
    if bar.low is not None and bar.high is not None:
        row |= {"low": rounded(bar.low), "high": rounded(bar.high), "interval": f"{bar.low:.4g} to {bar.high:.4g}"}
    return row

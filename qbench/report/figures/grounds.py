"""Layers of what measurements are held against: bands, guides and levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import altair, chart, frame, rounded
from qbench.report.figures.figure import Panel

_DASH = [5, 4]


def bands(panel: Panel) -> list[Any]:
    """Return grey areas, each with its word."""
    layers = []
    alt = altair()
    for band in panel.bands:
        rows: list[dict[str, Any]] = [
            {"x": x, "y": rounded(low), "end": rounded(high), "name": band.name}
            for x, low, high in zip(band.x, band.low, band.high, strict=True)
        ]
        area = chart(rows).mark_area(color=theme.SHADE, opacity=0.28, clip=True)
        layers.append(area.encode(**frame(panel), y2=alt.Y2("end:Q")))
        layers.append(_word(panel, band.x[-1], band.high[-1], band.name))
    return layers


def guides(panel: Panel) -> list[Any]:
    """Return grey lines, each with its name at its end."""
    layers = []
    for guide in panel.guides:
        places = [(x, y) for x, y in zip(guide.x, guide.y, strict=True) if panel.x.shows(x) and panel.y.shows(y)]
        rows = [{"x": rounded(x), "y": rounded(y), "place": place} for place, (x, y) in enumerate(places)]
        if not rows:
            continue
        line = chart(rows).mark_line(color=theme.SOFT, strokeWidth=1.2, strokeDash=_DASH, clip=True)
        layers.append(line.encode(**frame(panel), order="place:Q"))
        layers.append(_word(panel, *places[-1], guide.name))
    return layers


def levels(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Any]:
    """Return straight lines across the frame, with their names at its edge."""
    alt = altair()
    layers = []
    for level in panel.levels:
        if not (panel.x if level.axis == "x" else panel.y).shows(level.value):
            continue
        style = None if level.series is None else styles.get(level.series)
        colour, dash = (theme.SOFT, _DASH) if style is None else (style.colour, [3, 3])
        value = rounded(level.value)
        base = chart([{"x": value, "y": value, "name": level.name}])
        where = {level.axis: frame(panel)[level.axis]}
        layers.append(base.mark_rule(color=colour, strokeWidth=1.3, strokeDash=dash, clip=True).encode(**where))
        if level.name:
            beside = {"x": alt.value("width")} if level.axis == "y" else {"y": alt.value(0)}
            offset = {"align": "left", "dx": 6} if level.axis == "y" else {"align": "center", "dy": -6}
            text = base.mark_text(fontSize=10, font=theme.FONT, color=theme.SOFT, **offset)
            layers.append(text.encode(**where, **beside, text="name:N"))
    return layers


def _word(panel: Panel, x: float, y: float, name: str) -> Any:
    """Return words at the end of a line."""
    text = chart([{"x": rounded(x), "y": rounded(y), "name": name}]).mark_text(
        align="left", dx=11, fontSize=10, font=theme.FONT, color=theme.SOFT
    )
    return text.encode(**frame(panel), text="name:N")

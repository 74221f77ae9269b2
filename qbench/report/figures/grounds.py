"""Layers of what measurements are held against: bands, guides and levels."""

from __future__ import annotations

from collections.abc import Mapping

from qbench.report.figures import theme
from qbench.report.figures.encoding import Layer, Row, layer, rounded, word
from qbench.report.figures.figure import Panel

_DASH = [5, 4]
_ACROSS = {"x": {"value": 0}, "x2": {"value": "width"}}
_ALONG = {"y": {"value": 0}, "y2": {"value": "height"}}


def bands(panel: Panel) -> list[Layer]:
    """Return grey areas, each with its word."""
    layers = []
    for band in panel.bands:
        rows: list[Row] = [
            {"x": x, "y": rounded(low), "end": rounded(high)}
            for x, low, high in zip(band.x, band.low, band.high, strict=True)
        ]
        layers.append(layer("area", rows, {"color": theme.SHADE, "opacity": 0.28, "clip": True}, y2={"field": "end"}))
        layers.append(_word(band.x[-1], band.high[-1], band.name))
    return layers


def guides(panel: Panel) -> list[Layer]:
    """Return grey lines, each with its name at its end."""
    layers = []
    for guide in panel.guides:
        places = [(x, y) for x, y in zip(guide.x, guide.y, strict=True) if panel.x.shows(x) and panel.y.shows(y)]
        if not places:
            continue
        rows: list[Row] = [{"x": rounded(x), "y": rounded(y)} for x, y in places]
        how = {"color": theme.SOFT, "strokeWidth": 1.2, "strokeDash": _DASH, "clip": True}
        put = _word_at_edge if places[-1][0] == _last(panel) else _word
        layers += [layer("line", rows, how), put(*places[-1], guide.name)]
    return layers


def levels(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Layer]:
    """Return straight lines across the frame, with their names at its edge."""
    layers = []
    for level in panel.levels:
        across = level.axis == "y"
        if not (panel.y if across else panel.x).shows(level.value):
            continue
        style = None if level.series is None else styles.get(level.series)
        colour, dash = (theme.SOFT, _DASH) if style is None else (style.colour, [3, 3])
        rows: list[Row] = [{level.axis: rounded(level.value), "name": level.name}]
        how = {"color": colour, "strokeWidth": 1.3, "strokeDash": dash, "clip": True}
        layers.append(layer("rule", rows, how, **(_ACROSS if across else _ALONG)))
        if level.name:
            offset = {"align": "left", "dx": 6} if across else {"align": "center", "dy": -6}
            beside = {"x": {"value": "width"}} if across else {"y": {"value": 0}}
            layers.append(word(rows, theme.SOFT, offset, **beside))
    return layers


def _last(panel: Panel) -> float:
    """Return the place that is farthest to the right."""
    every = [x for x, _ in panel.places] + [x for guide in panel.guides for x in guide.x]
    return (min if panel.x.falling else max)(x for x in every if panel.x.shows(x))


def _word_at_edge(_: float, y: float, name: str) -> Layer:
    """Return words at the edge of the frame, at the height of the end of a line."""
    return word([{"y": rounded(y), "name": name}], theme.SOFT, {"align": "left", "dx": 6}, x={"value": "width"})


def _word(x: float, y: float, name: str) -> Layer:
    """Return words at the end of a line."""
    return word([{"x": rounded(x), "y": rounded(y), "name": name}], theme.SOFT, {"align": "left", "dx": 11})

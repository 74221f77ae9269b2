"""From a figure to a Vega-Lite specification, and from that to SVG and PNG."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from qbench.errors import QBenchError
from qbench.report.figures import theme
from qbench.report.figures.figure import Axis, Curve, Figure, Panel

Format = Literal["svg", "png"]

_SIZES = {1: (500, 310), 2: (340, 240), 3: (255, 200)}
_LETTER, _PANEL_LETTER, _SMALL_LETTER = 9.2, 7.0, 6.5  # pixels: of titles, those of panels, and subtitles
_MARKS = 24  # on one curve
_SHARP = 2.0  # pixels of a PNG for each of the drawing


def specification(figure: Figure) -> dict[str, Any]:
    """Return a figure as a Vega-Lite specification with its data.

    Raises
    ------
    QBenchError
        The drawing library is missing.
    """
    alt = _altair()
    size = _SIZES[min(figure.columns, 3)]
    styles = theme.styles(curve.series for panel in figure.panels for curve in panel.curves)
    panels = [_panel(panel, styles, size) for panel in figure.panels]
    # A panel with a title of its own takes no second one.
    alone = len(panels) == 1 and not figure.panels[0].title
    chart = panels[0] if alone else alt.concat(*panels, columns=figure.columns)
    room = figure.columns * (size[0] + 70) + 20
    chart = chart.properties(
        title=alt.TitleParams(
            textwrap.wrap(figure.title, int(room / _LETTER)),
            subtitle=[
                line for text in (figure.of, *figure.notes) for line in textwrap.wrap(text, int(room / _SMALL_LETTER))
            ],
        )
    )
    found: dict[str, Any] = chart.to_dict(validate=False)
    # Altair's own theme is whatever the session has enabled.
    found["config"] = theme.config()
    return found


def image(spec: Mapping[str, Any], form: Format) -> bytes:
    """Return the picture of a specification, the same bytes each time; nothing is fetched.

    Raises
    ------
    QBenchError
        The drawing library is missing.
    """
    alt, converter = _altair(), _converter()
    version = "v" + ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    if form == "svg":
        return _renumbered(converter.vegalite_to_svg(dict(spec), vl_version=version)).encode()
    return cast(bytes, converter.vegalite_to_png(dict(spec), vl_version=version, scale=_SHARP))


def _renumbered(svg: str) -> str:
    """Return an SVG whose clip paths are numbered from 1: the converter counts on from picture to picture."""
    numbers: dict[str, int] = {}
    return re.sub(r"\bclip(\d+)\b", lambda found: f"clip{numbers.setdefault(found[1], len(numbers) + 1)}", svg)


def _altair() -> Any:
    try:
        import altair
    except ImportError as missing:
        raise QBenchError("figures need altair: pip install qbench[report]") from missing
    return altair


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError as missing:
        raise QBenchError("figures need vl-convert-python: pip install qbench[report]") from missing
    return vl_convert


def _panel(panel: Panel, styles: Mapping[str, theme.Style], size: tuple[int, int]) -> Any:
    alt = _altair()
    means = panel.means() if panel.joined else []
    layers = [*_bands(panel), *_guides(panel), *_levels(panel, styles)]
    if any(mean.seed > 1 for mean in means):
        layers += _thin(panel, styles)
    layers += _thick(panel, means, styles) if panel.joined else [_marks(panel, panel.curves, styles)]
    layers += _labels(panel, means)
    chart = alt.layer(*layers).properties(width=size[0], height=size[1])
    if not panel.title:
        return chart
    width = int(size[0] / _PANEL_LETTER)
    lines = [line for part in panel.title.splitlines() for line in textwrap.wrap(part, width, break_long_words=False)]
    return chart.properties(title=alt.TitleParams(lines, fontSize=11, fontWeight="bold", offset=8))


def _rows(panel: Panel, curves: Iterable[Curve], styles: Mapping[str, theme.Style]) -> list[dict[str, Any]]:
    """Return one row a place that the axes have room for."""
    rows: list[dict[str, Any]] = []
    for curve in curves:
        name = styles[curve.series].label
        for place, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
            if panel.x.shows(x) and panel.y.shows(y):
                rows.append({"series": name, "seed": curve.seed, "place": place, "x": x, "y": y})
    return rows


def _frame(panel: Panel, x: str = "x", y: str = "y") -> dict[str, Any]:
    """Return the encodings of the two axes, the same in all layers."""
    alt = _altair()
    return {"x": _axis(alt.X, f"{x}:Q", panel.x), "y": _axis(alt.Y, f"{y}:Q", panel.y)}


def _axis(channel: Any, name: str, axis: Axis) -> Any:
    alt = _altair()
    # Room for the marks at the ends.
    scale: dict[str, Any] = {"type": axis.scale, "zero": False, "nice": False, "padding": 7}
    if axis.scale == "symlog":
        scale["constant"] = axis.constant
    if axis.falling:
        scale["reverse"] = True
    for end, value in (("domainMin", axis.low), ("domainMax", axis.high)):
        if value is not None:
            scale[end] = value
    # A count would thin out ticks that are given.
    shown = {"values": list(axis.ticks)} if axis.ticks else {"tickCount": 6}
    return channel(
        name,
        scale=alt.Scale(**scale),
        axis=alt.Axis(title=axis.title, format="~r", labelOverlap="greedy", labelSeparation=4, **shown),
    )


def _look(styles: Mapping[str, theme.Style]) -> dict[str, Any]:
    """Return the encodings of colour and shape by series, with one legend of both."""
    alt = _altair()
    names = [style.label for style in styles.values()]
    legend = alt.Legend(orient="bottom", title=None, columns=3, direction="horizontal") if len(styles) > 1 else None
    colours, shapes = [style.colour for style in styles.values()], [style.shape for style in styles.values()]
    return {
        "color": alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
        "shape": alt.Shape("series:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
    }


def _chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    alt = _altair()
    return alt.Chart(alt.InlineData(values=list(rows)))


def _thin(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Any]:
    layers = []
    for series, held in _by_series(panel.curves):
        colour = styles[series].colour
        # Of a colour without an encoding, which would bring these lines into the legend.
        lines = _chart(_rows(panel, held, styles)).mark_line(color=colour, strokeWidth=0.9, opacity=0.45, clip=True)
        sparse = _chart(_rows(panel, [_sparse(panel, curve) for curve in held], styles))
        points = sparse.mark_circle(color=colour, size=9, opacity=0.6, clip=True)
        layers += [lines.encode(**_frame(panel), detail="seed:N", order="place:Q"), points.encode(**_frame(panel))]
    return layers


def _thick(panel: Panel, means: Sequence[Curve], styles: Mapping[str, theme.Style]) -> list[Any]:
    layers = []
    for series, held in _by_series(means):
        # Of a dash without an encoding, which the legend would draw around the shapes.
        look = {"color": styles[series].colour, "strokeDash": list(styles[series].dash)}
        lines = _chart(_rows(panel, held, styles)).mark_line(strokeWidth=2, clip=True, **look)
        layers.append(lines.encode(**_frame(panel), order="place:Q"))
    return [*layers, _marks(panel, [_sparse(panel, mean) for mean in means], styles)]


def _by_series(curves: Iterable[Curve]) -> list[tuple[str, list[Curve]]]:
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.series, []).append(curve)
    return list(found.items())


def _sparse(panel: Panel, curve: Curve) -> Curve:
    """Return the places of a long curve that marks do not hide each other at."""
    kept: list[int] = []
    at = [panel.x.stretched(x) if panel.x.shows(x) else None for x in curve.x]
    known = [one for one in at if one is not None]
    if len(known) <= _MARKS:
        return curve
    apart = (max(known) - min(known)) / _MARKS
    for place, one in enumerate(at):
        if one is not None and (not kept or abs(one - (at[kept[-1]] or 0.0)) >= apart):
            kept.append(place)
    return replace(
        curve,
        x=tuple(curve.x[place] for place in kept),
        y=tuple(curve.y[place] for place in kept),
        keys=(),
        labels=(),
    )


def _marks(panel: Panel, curves: Iterable[Curve], styles: Mapping[str, theme.Style]) -> Any:
    points = _chart(_rows(panel, curves, styles)).mark_point(filled=True, size=46, opacity=1, clip=True)
    return points.encode(**_frame(panel), **_look(styles))


def _labels(panel: Panel, means: Sequence[Curve]) -> list[Any]:
    rows = [
        {"x": x, "y": y, "label": label}
        for mean in means
        for x, y, label in zip(mean.x, mean.y, mean.labels, strict=False)
        if panel.x.shows(x) and panel.y.shows(y)
    ]
    if not rows:
        return []
    text = _chart(rows).mark_text(dx=7, dy=9, align="left", fontSize=10, font=theme.FONT, color=theme.INK, clip=True)
    return [text.encode(**_frame(panel), text="label:N")]


def _bands(panel: Panel) -> list[Any]:
    layers = []
    alt = _altair()
    for band in panel.bands:
        rows: list[dict[str, Any]] = [
            {"x": x, "y": low, "end": high, "name": band.name}
            for x, low, high in zip(band.x, band.low, band.high, strict=True)
        ]
        area = _chart(rows).mark_area(color="#999999", opacity=0.28, clip=True)
        layers.append(area.encode(**_frame(panel), y2=alt.Y2("end:Q")))
        layers.append(_word(panel, band.x[-1], band.high[-1], band.name))
    return layers


def _guides(panel: Panel) -> list[Any]:
    layers = []
    for guide in panel.guides:
        places = [(x, y) for x, y in zip(guide.x, guide.y, strict=True) if panel.x.shows(x) and panel.y.shows(y)]
        rows = [{"x": x, "y": y, "place": place} for place, (x, y) in enumerate(places)]
        if not rows:
            continue
        line = _chart(rows).mark_line(color=theme.SOFT, strokeWidth=1.2, strokeDash=[5, 4], clip=True)
        layers.append(line.encode(**_frame(panel), order="place:Q"))
        layers.append(_word(panel, *places[-1], guide.name))
    return layers


def _word(panel: Panel, x: float, y: float, name: str) -> Any:
    """Return words at the end of a line."""
    text = _chart([{"x": x, "y": y, "name": name}]).mark_text(
        align="left", dx=11, fontSize=10, font=theme.FONT, color=theme.SOFT
    )
    return text.encode(**_frame(panel), text="name:N")


def _levels(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Any]:
    alt = _altair()
    layers = []
    for level in panel.levels:
        if not (panel.x if level.axis == "x" else panel.y).shows(level.value):
            continue
        style = None if level.series is None else styles.get(level.series)
        colour, dash = (theme.SOFT, [5, 4]) if style is None else (style.colour, [3, 3])
        base = _chart([{"x": level.value, "y": level.value, "name": level.name}])
        where = {level.axis: _frame(panel)[level.axis]}
        layers.append(base.mark_rule(color=colour, strokeWidth=1.3, strokeDash=dash, clip=True).encode(**where))
        if level.name:
            beside = {"x": alt.value("width")} if level.axis == "y" else {"y": alt.value(0)}
            offset = {"align": "left", "dx": 6} if level.axis == "y" else {"align": "center", "dy": -6}
            text = base.mark_text(fontSize=10, font=theme.FONT, color=theme.SOFT, **offset)
            layers.append(text.encode(**where, **beside, text="name:N"))
    return layers

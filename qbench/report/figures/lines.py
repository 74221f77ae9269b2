"""Layers of curves: thin lines a seed, a thick one for their mean, marks and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import Layer, Row, layer, look, rounded, tooltips, word
from qbench.report.figures.figure import Axis, Curve, Panel

_MARKS = 24  # on one curve
_SEEN = 0.0015  # of the frame: half a pixel


def curves(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Layer]:
    """Return the layers of all curves of a panel."""
    if not panel.curves:
        return []
    if not panel.joined:
        return [_marks(panel, panel.curves, styles)]
    means = panel.means()
    layers = _thin(panel, styles) if any(mean.seed > 1 for mean in means) else []
    return layers + _thick(panel, means, styles) + _labels(panel, means)


def _places(panel: Panel, curve: Curve) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if panel.x.shows(x) and panel.y.shows(y)]


def _rows(panel: Panel, held: Iterable[Curve], styles: Mapping[str, theme.Style]) -> list[Row]:
    """Return one row a place that the axes have room for."""
    return [
        {"series": styles[curve.series].label, "seed": curve.seed, "x": rounded(x), "y": rounded(y)}
        for curve in held
        for x, y in _places(panel, curve)
    ]


def _told(panel: Panel) -> list[dict[str, Any]]:
    return tooltips({"series": "series", "seed": "seed", "x": f"{panel.x.title}#", "y": f"{panel.y.title}#"})


def _thin(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Layer]:
    layers = []
    for series, held in _by_series(panel.curves):
        colour = styles[series].colour
        # Of a colour without an encoding, which would bring these lines into the legend.
        line = {"color": colour, "strokeWidth": 0.9, "opacity": 0.45, "clip": True}
        points = {"color": colour, "size": 9, "opacity": 0.6, "clip": True}
        short = [curve for curve in held if len(curve.x) <= _MARKS]
        long = [row for curve in held if curve not in short for row in _rows(panel, [_traced(panel, curve)], styles)]
        by_seed = {"detail": {"field": "seed", "type": "nominal"}}
        if long:
            layers.append(_line(long, ("seed", "x", "y"), line, **by_seed))
        if rows := _rows(panel, short, styles):
            # One set of rows for both.
            both = [layer("line", (), line, **by_seed), layer("circle", (), points, tooltip=_told(panel))]
            layers.append(
                {"data": {"values": rows}, "layer": [{k: v for k, v in one.items() if k != "data"} for one in both]}
            )
    return layers


def _thick(panel: Panel, means: Sequence[Curve], styles: Mapping[str, theme.Style]) -> list[Layer]:
    layers = []
    for mean in means:
        style = styles[mean.series]
        # Of a dash without an encoding, which the legend would draw around the shapes.
        how = {"color": style.colour, "strokeDash": list(style.dash), "strokeWidth": 2, "clip": True}
        places = _places(panel, _traced(panel, mean))
        layers.append(_line([{"x": rounded(x), "y": rounded(y)} for x, y in places], ("x", "y"), how))
    marks = _marks(panel, [_sparse(panel, mean) for mean in means], styles)
    seeds = {styles[series].label: _seeds(held) for series, held in _by_series(panel.curves)}
    for row in marks["data"]["values"]:
        row["seed"] = seeds[row["series"]]
    return [*layers, marks]


def _line(rows: Sequence[Row], fields: Sequence[str], look: Mapping[str, Any], **channels: Any) -> Layer:
    """Return a line whose data are a table of words, which takes half the room of rows."""
    table = "\n".join([",".join(fields), *(",".join(str(row[field]) for field in fields) for row in rows)])
    return layer("line", (), look, **channels) | {"data": {"values": table, "format": {"type": "csv"}}}


def _seeds(held: Sequence[Curve]) -> int | str:
    return held[0].seed if len(held) == 1 else f"mean of {len(held)}"


def _by_series(held: Iterable[Curve]) -> list[tuple[str, list[Curve]]]:
    found: dict[str, list[Curve]] = {}
    for curve in held:
        found.setdefault(curve.series, []).append(curve)
    return list(found.items())


def _kept(curve: Curve, places: Sequence[int]) -> Curve:
    return replace(
        curve, x=tuple(curve.x[at] for at in places), y=tuple(curve.y[at] for at in places), keys=(), labels=()
    )


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
    return _kept(curve, kept)


def _traced(panel: Panel, curve: Curve) -> Curve:
    """Return a curve without the places that its line looks the same without (Douglas and Peucker 1973)."""
    shown = [
        place
        for place, (x, y) in enumerate(zip(curve.x, curve.y, strict=True))
        if panel.x.shows(x) and panel.y.shows(y)
    ]
    if len(shown) <= _MARKS:
        return curve
    every = panel.places
    spans = [_span(of, [place[index] for place in every]) for index, of in enumerate((panel.x, panel.y))]
    at = {
        place: (panel.x.stretched(curve.x[place]) / spans[0], panel.y.stretched(curve.y[place]) / spans[1])
        for place in shown
    }
    kept = {shown[0], shown[-1]}
    open_ = [(0, len(shown) - 1)]
    while open_:
        first, last = open_.pop()
        if last - first < 2:
            continue
        far, most = max(
            ((_away(at[shown[i]], at[shown[first]], at[shown[last]]), i) for i in range(first + 1, last)),
        )
        if far > _SEEN:
            kept.add(shown[most])
            open_ += [(first, most), (most, last)]
    return _kept(curve, sorted(kept))


def _span(axis: Axis, values: Iterable[float]) -> float:
    at = [
        axis.stretched(min(max(value, axis.low or value), axis.high or value)) for value in values if axis.shows(value)
    ]
    return (max(at) - min(at)) or 1.0


def _away(point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> float:
    """Return how far a point is from a straight piece of line."""
    along = (end[0] - start[0], end[1] - start[1])
    size = along[0] ** 2 + along[1] ** 2
    to = (point[0] - start[0], point[1] - start[1])
    share = min(max((to[0] * along[0] + to[1] * along[1]) / size, 0.0), 1.0) if size else 0.0
    off = (to[0] - share * along[0], to[1] - share * along[1])
    return float((off[0] ** 2 + off[1] ** 2) ** 0.5)


def _marks(panel: Panel, held: Iterable[Curve], styles: Mapping[str, theme.Style]) -> Layer:
    how = {"filled": False, "size": 46, "opacity": 1, "strokeWidth": 1.2, "clip": True}
    return layer("point", _rows(panel, held, styles), how, **look(styles), tooltip=_told(panel))


def _labels(panel: Panel, means: Sequence[Curve]) -> list[Layer]:
    rows: list[Row] = [
        {"x": rounded(x), "y": rounded(y), "name": label}
        for mean in means
        for x, y, label in zip(mean.x, mean.y, mean.labels, strict=False)
        if panel.x.shows(x) and panel.y.shows(y)
    ]
    return [word(rows, theme.INK, {"dx": 7, "dy": 9, "align": "left", "clip": True})] if rows else []

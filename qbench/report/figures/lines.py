"""Layers of curves: thin lines a seed, a thick one for their mean, marks and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import Layer, Row, layer, look, rounded, tooltips, word
from qbench.report.figures.figure import Curve, Panel
from qbench.report.figures.thinning import MARKS, sparse, traced


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
    """Return one row a curve, with all places that the axes have room for: see `_flat`."""
    rows = []
    for curve in held:
        if places := _places(panel, curve):
            x, y = ([rounded(value) for value in values] for values in zip(*places, strict=True))
            rows.append({"series": styles[curve.series].label, "seed": curve.seed, "x": x, "y": y})
    return rows


def _flat(one: Layer, rows: Sequence[Row]) -> Layer:
    """Return a layer of rows whose places are lists, which takes a third of the room of a row each."""
    return one | {"data": {"values": list(rows)}, "transform": [{"flatten": ["x", "y"]}]}


def _told(panel: Panel) -> list[dict[str, Any]]:
    return tooltips({"series": "series", "seed": "seed", "x": f"{panel.x.title}#", "y": f"{panel.y.title}#"})


def _thin(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Layer]:
    layers = []
    for series, held in _by_series(panel.curves):
        colour = styles[series].colour
        # Of a colour without an encoding, which would bring these lines into the legend.
        line = {"color": colour, "strokeWidth": 0.9, "opacity": 0.45, "clip": True}
        points = {"color": colour, "size": 9, "opacity": 0.6, "clip": True}
        short = [curve for curve in held if len(curve.x) <= MARKS]
        long = [traced(panel, curve) for curve in held if curve not in short]
        lines: Layer = layer("line", (), line, detail={"field": "seed", "type": "nominal"})
        if rows := _rows(panel, long, styles):
            layers.append(_flat(lines, rows))
        if rows := _rows(panel, short, styles):
            # One set of rows for both.
            both = [lines, layer("circle", (), points, tooltip=_told(panel))]
            layers.append(_flat({"layer": [{k: v for k, v in one.items() if k != "data"} for one in both]}, rows))
    return layers


def _thick(panel: Panel, means: Sequence[Curve], styles: Mapping[str, theme.Style]) -> list[Layer]:
    layers = []
    for mean in means:
        style = styles[mean.series]
        # Of a dash without an encoding, which the legend would draw around the shapes.
        how = {"color": style.colour, "strokeDash": list(style.dash), "strokeWidth": 2, "clip": True}
        layers.append(_flat(layer("line", (), how), _rows(panel, [traced(panel, mean)], styles)))
    marks = _marks(panel, [sparse(panel, mean) for mean in means], styles)
    seeds = {styles[series].label: _seeds(held) for series, held in _by_series(panel.curves)}
    for row in marks["data"]["values"]:
        row["seed"] = seeds[row["series"]]
    return [*layers, marks]


def _seeds(held: Sequence[Curve]) -> int | str:
    return held[0].seed if len(held) == 1 else f"mean of {len(held)}"


def _by_series(held: Iterable[Curve]) -> list[tuple[str, list[Curve]]]:
    found: dict[str, list[Curve]] = {}
    for curve in held:
        found.setdefault(curve.series, []).append(curve)
    return list(found.items())


def _marks(panel: Panel, held: Iterable[Curve], styles: Mapping[str, theme.Style]) -> Layer:
    how = {"filled": False, "size": 46, "opacity": 1, "strokeWidth": 1.2, "clip": True}
    return _flat(layer("point", (), how, **look(styles), tooltip=_told(panel)), _rows(panel, held, styles))


def _labels(panel: Panel, means: Sequence[Curve]) -> list[Layer]:
    rows: list[Row] = [
        {"x": rounded(x), "y": rounded(y), "name": label}
        for mean in means
        for x, y, label in zip(mean.x, mean.y, mean.labels, strict=False)
        if panel.x.shows(x) and panel.y.shows(y)
    ]
    return [word(rows, theme.INK, {"dx": 7, "dy": 9, "align": "left", "clip": True})] if rows else []

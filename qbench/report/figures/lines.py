"""Layers of curves: thin lines a seed, a thick one for their mean, marks and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.encoding import chart, frame, look, rounded, tooltips
from qbench.report.figures.figure import Curve, Panel

_MARKS = 24  # on one curve


def curves(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Any]:
    """Return the layers of all curves of a panel."""
    if not panel.joined:
        return [_marks(panel, panel.curves, styles)] if panel.curves else []
    means = panel.means()
    layers = _thin(panel, styles) if any(mean.seed > 1 for mean in means) else []
    return layers + _thick(panel, means, styles) + _labels(panel, means) if means else []


def _rows(
    panel: Panel, held: Iterable[Curve], styles: Mapping[str, theme.Style], *, of_means: bool = False
) -> list[dict[str, Any]]:
    """Return one row a place that the axes have room for."""
    rows: list[dict[str, Any]] = []
    for curve in held:
        name = styles[curve.series].label
        seed = f"mean of {curve.seed}" if of_means and curve.seed > 1 else curve.seed
        for place, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
            if panel.x.shows(x) and panel.y.shows(y):
                rows.append({"series": name, "seed": seed, "place": place, "x": rounded(x), "y": rounded(y)})
    return rows


def _told(panel: Panel) -> list[Any]:
    return tooltips(
        ("series", "N", "series"), ("seed", "N", "seed"), ("x", "Q", panel.x.title), ("y", "Q", panel.y.title)
    )


def _thin(panel: Panel, styles: Mapping[str, theme.Style]) -> list[Any]:
    layers = []
    for series, held in _by_series(panel.curves):
        colour = styles[series].colour
        # Of a colour without an encoding, which would bring these lines into the legend.
        lines = chart(_rows(panel, held, styles)).mark_line(color=colour, strokeWidth=0.9, opacity=0.45, clip=True)
        sparse = chart(_rows(panel, [_sparse(panel, curve) for curve in held], styles))
        points = sparse.mark_circle(color=colour, size=9, opacity=0.6, clip=True)
        layers += [
            lines.encode(**frame(panel), detail="seed:N", order="place:Q"),
            points.encode(**frame(panel), tooltip=_told(panel)),
        ]
    return layers


def _thick(panel: Panel, means: Sequence[Curve], styles: Mapping[str, theme.Style]) -> list[Any]:
    layers = []
    for series, held in _by_series(means):
        # Of a dash without an encoding, which the legend would draw around the shapes.
        how = {"color": styles[series].colour, "strokeDash": list(styles[series].dash)}
        lines = chart(_rows(panel, held, styles)).mark_line(strokeWidth=2, clip=True, **how)
        layers.append(lines.encode(**frame(panel), order="place:Q"))
    return [*layers, _marks(panel, [_sparse(panel, mean) for mean in means], styles)]


def _by_series(held: Iterable[Curve]) -> list[tuple[str, list[Curve]]]:
    found: dict[str, list[Curve]] = {}
    for curve in held:
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


def _marks(panel: Panel, held: Iterable[Curve], styles: Mapping[str, theme.Style]) -> Any:
    rows = _rows(panel, held, styles, of_means=panel.joined)
    points = chart(rows).mark_point(filled=False, size=46, opacity=1, strokeWidth=1.2, clip=True)
    return points.encode(**frame(panel), **look(styles), tooltip=_told(panel))


def _labels(panel: Panel, means: Sequence[Curve]) -> list[Any]:
    rows = [
        {"x": rounded(x), "y": rounded(y), "label": label}
        for mean in means
        for x, y, label in zip(mean.x, mean.y, mean.labels, strict=False)
        if panel.x.shows(x) and panel.y.shows(y)
    ]
    if not rows:
        return []
    text = chart(rows).mark_text(dx=7, dy=9, align="left", fontSize=10, font=theme.FONT, color=theme.INK, clip=True)
    return [text.encode(**frame(panel), text="label:N")]

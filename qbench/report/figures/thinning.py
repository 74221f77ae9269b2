"""Which places of long curves are drawn: lines and marks look the same with fewer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from qbench.report.figures.figure import Axis, Curve, Panel

MARKS = 24  # on one curve
_SEEN = 0.0015  # of the frame: half a pixel


def _kept(curve: Curve, places: Sequence[int]) -> Curve:
    return replace(
        curve, x=tuple(curve.x[at] for at in places), y=tuple(curve.y[at] for at in places), keys=(), labels=()
    )


def sparse(panel: Panel, curve: Curve) -> Curve:
    """Return the places of a long curve that marks do not hide each other at.

    Parameters
    ----------
    panel : Panel
        Where it is drawn.
    curve : Curve
        Any.
    """
    kept: list[int] = []
    at = [panel.x.stretched(x) if panel.x.shows(x) else None for x in curve.x]
    known = [one for one in at if one is not None]
    if len(known) <= MARKS:
        return curve
    apart = (max(known) - min(known)) / MARKS
    for place, one in enumerate(at):
        if one is not None and (not kept or abs(one - (at[kept[-1]] or 0.0)) >= apart):
            kept.append(place)
    return _kept(curve, kept)


def traced(panel: Panel, curve: Curve) -> Curve:
    """Return a curve without the places that its line looks the same without (Douglas and Peucker 1973).

    Parameters
    ----------
    panel : Panel
        Where it is drawn.
    curve : Curve
        Any.
    """
    shown = [
        place
        for place, (x, y) in enumerate(zip(curve.x, curve.y, strict=True))
        if panel.x.shows(x) and panel.y.shows(y)
    ]
    if len(shown) <= MARKS:
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

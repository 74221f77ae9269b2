"""Axes, colours and tooltips as Vega-Lite has them: what all layers of a drawing share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qbench.report.figures import theme
from qbench.report.figures.axes import log_numbers
from qbench.report.figures.figure import Axis, Panel

Layer = dict[str, Any]
"""One layer of a Vega-Lite specification; its places are the fields ``x`` and ``y`` of its rows."""

Row = dict[str, Any]

LITERAL: dict[str, Any] = {"type": "nominal", "scale": None, "legend": None}
"""A channel whose field holds what is drawn, a colour say; no scale, and nothing in the legend."""

_PADDING, _LABELLED = 7, 18  # pixels between the frame and the marks at the ends, without words beside these and with
_DIGITS = 5  # of coordinates: a tenth of a pixel takes four


def layer(mark: str, rows: Sequence[Row], look: Mapping[str, Any], **channels: Any) -> Layer:
    """Return a layer.

    Parameters
    ----------
    mark : str
        What is drawn of each row, or through all.
    rows : sequence of dict
        The data.
    look : mapping
        How the mark looks, as Vega-Lite names it.
    channels
        Encodings beside those of the two axes.
    """
    return {"data": {"values": list(rows)}, "mark": {"type": mark, **look}, "encoding": channels}


def word(rows: Sequence[Row], colour: str, look: Mapping[str, Any], **channels: Any) -> Layer:
    """Return a layer of words.

    Parameters
    ----------
    rows : sequence of dict
        Their words are the field ``name``.
    colour : str
        Of the words.
    look, channels
        See `layer`.
    """
    how = {"fontSize": theme.SMALL, "font": theme.FONT, "color": colour, **look}
    return layer("text", rows, how, text={"field": "name", "type": "nominal"}, **channels)


def rounded(value: float) -> float:
    """Return a coordinate with as many digits as can be seen."""
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short


def frame(panel: Panel) -> dict[str, Any]:
    """Return the encodings of both axes, which all layers of a panel share."""
    axes = {"x": axis("x", _ticked(panel.x, 0, panel)), "y": axis("y", _ticked(panel.y, 1, panel))}
    if any(curve.labels for curve in panel.curves):
        for one in axes.values():
            one["scale"]["padding"] = _LABELLED
    return axes


def _ticked(of: Axis, index: int, panel: Panel) -> Axis:
    """Return a logarithmic axis with ticks at round numbers; by itself the drawing puts nine into each decade."""
    places = [*panel.places, *(place for guide in panel.guides for place in zip(guide.x, guide.y, strict=True))]
    values = [place[index] for place in places if of.shows(place[index])]
    if of.scale != "log" or of.ticks or not values:
        return of
    low, high = (value if end is None else end for end, value in ((of.low, min(values)), (of.high, max(values))))
    return replace(of, ticks=log_numbers(low, high))


def axis(field: str, of: Axis) -> dict[str, Any]:
    """Return the encoding of one axis.

    Parameters
    ----------
    field : str
        Of the rows.
    of : Axis
        What it shows.
    """
    # Room for the marks at the ends.
    scale: dict[str, Any] = {"type": of.scale, "nice": False, "padding": _PADDING}
    if of.scale != "log":  # which has no 0, and would be warned of
        scale["zero"] = False
    if of.scale == "symlog":
        scale["constant"] = of.constant
    if of.falling:
        scale["reverse"] = True
    for end, value in (("domainMin", of.low), ("domainMax", of.high)):
        if value is not None:
            scale[end] = value
    # A count would thin out ticks that are given.
    shown = {"values": [rounded(tick) for tick in of.ticks]} if of.ticks else {"tickCount": 6}
    words = {"title": of.title, "format": "~r", "labelOverlap": "greedy", "labelSeparation": 4}
    # Rows are in the order of their lines.
    return {"field": field, "type": "quantitative", "sort": None, "scale": scale, "axis": words | shown}


def look(styles: Mapping[str, theme.Style], *, legend: bool = True) -> dict[str, Any]:
    """Return the encodings of outline, filling and shape by series, with one legend of all where it is asked for."""
    names = [style.label for style in styles.values()]
    words = {"orient": "bottom", "title": None, "columns": _columns(names), "direction": "horizontal"}
    of = {
        "stroke": [style.colour for style in styles.values()],
        "fill": [theme.GROUND if style.hollow else style.colour for style in styles.values()],
        "shape": [style.shape for style in styles.values()],
    }
    return {
        channel: {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": values},
            "legend": words if legend and len(styles) > 1 else None,
        }
        for channel, values in of.items()
    }


def _columns(names: Iterable[str]) -> int:
    longest = max(map(len, names), default=0)
    return 4 if longest < 18 else 3 if longest < 30 else 2 if longest < 50 else 1


def tooltips(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what is told of a mark that is pointed at.

    Parameters
    ----------
    fields : mapping of str to str
        Fields of the rows, and what each is called. Numbers are those whose name ends in ``#``, which is cut off.
    """
    return [
        {"field": field, "type": "quantitative", "title": title[:-1], "format": ".4~g"}
        if title.endswith("#")
        else {"field": field, "type": "nominal", "title": title}
        for field, title in fields.items()
    ]

"""Axes, colours and tooltips as Vega-Lite has them: what all layers of a drawing share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qbench.errors import QBenchError
from qbench.report.figures import theme
from qbench.report.figures.figure import Axis, Panel

_DIGITS = 5  # of coordinates: a tenth of a pixel takes four


def altair() -> Any:
    """Return the library that makes specifications.

    Raises
    ------
    QBenchError
        It is missing.
    """
    try:
        import altair as library
    except ImportError as missing:
        raise QBenchError("figures need altair: pip install qbench[report]") from missing
    return library


def chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return an empty chart of some rows."""
    alt = altair()
    return alt.Chart(alt.InlineData(values=list(rows)))


def rounded(value: float) -> float:
    """Return a coordinate with as many digits as can be seen."""
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short


def frame(panel: Panel, x: str = "x", y: str = "y") -> dict[str, Any]:
    """Return the encodings of the two axes, the same in all layers."""
    alt = altair()
    return {"x": axis(alt.X, f"{x}:Q", panel.x), "y": axis(alt.Y, f"{y}:Q", panel.y)}


def axis(channel: Any, name: str, of: Axis) -> Any:
    """Return the encoding of one axis.

    Parameters
    ----------
    channel : type
        The library's class of a channel.
    name : str
        Field and type.
    of : Axis
        What it shows.
    """
    alt = altair()
    # Room for the marks at the ends.
    scale: dict[str, Any] = {"type": of.scale, "zero": False, "nice": False, "padding": 7}
    if of.scale == "symlog":
        scale["constant"] = of.constant
    if of.falling:
        scale["reverse"] = True
    for end, value in (("domainMin", of.low), ("domainMax", of.high)):
        if value is not None:
            scale[end] = value
    # A count would thin out ticks that are given.
    shown = {"values": list(of.ticks)} if of.ticks else {"tickCount": 6}
    return channel(
        name,
        scale=alt.Scale(**scale),
        axis=alt.Axis(title=of.title, format="~r", labelOverlap="greedy", labelSeparation=4, **shown),
    )


def look(styles: Mapping[str, theme.Style]) -> dict[str, Any]:
    """Return the encodings of outline, filling and shape by series, with one legend of all."""
    alt = altair()
    names = [style.label for style in styles.values()]
    legend = alt.Legend(orient="bottom", title=None, columns=_columns(names), direction="horizontal")
    shown = legend if len(styles) > 1 else None
    of = {
        "stroke": [style.colour for style in styles.values()],
        "fill": [theme.GROUND if style.hollow else style.colour for style in styles.values()],
        "shape": [style.shape for style in styles.values()],
    }
    channels = {"stroke": alt.Stroke, "fill": alt.Fill, "shape": alt.Shape}
    return {
        name: channels[name]("series:N", scale=alt.Scale(domain=names, range=values), legend=shown)
        for name, values in of.items()
    }


def _columns(names: Iterable[str]) -> int:
    longest = max(map(len, names), default=0)
    return 4 if longest < 18 else 3 if longest < 32 else 2


def tooltips(*fields: tuple[str, str, str]) -> list[Any]:
    """Return what is told of a mark that is pointed at.

    Parameters
    ----------
    fields : (str, str, str)
        The field of the row, its type (``N`` or ``Q``), and what it is called.
    """
    alt = altair()
    numbers = {"format": ".4~g"}
    return [
        alt.Tooltip(f"{field}:{kind}", title=title, **(numbers if kind == "Q" else {})) for field, kind, title in fields
    ]

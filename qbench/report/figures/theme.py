"""How figures look: one palette, one set of marks, one set of sizes.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; every series also has a dash and a
shape of its own, so that no figure needs colour to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# The first one is inside vl-convert: what is drawn does not depend on the fonts of the machine.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
INK, SOFT, FAINT = "#222222", "#666666", "#e4e4e4"
SMALL = 10  # letters beside lines and points
FRAME, SHADE = "#bbbbbb", "#999999"

GROUND = "white"

# Orange and sky are darker than Okabe's and Ito's, which have a contrast of 2.3 with white: marks take 3.
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#BD8200", "#2F93D1", "#009E73"
_BLUE, _VERMILION, _PURPLE, _GREY = "#0072B2", "#D55E00", "#CC79A7", "#777777"

_PLAIN: tuple[int, ...] = (1, 0)
_DASHED, _DOTTED, _DASH_DOT, _LONG, _SHORT = (6, 3), (2, 2), (7, 2, 2, 2), (11, 3), (4, 2)
_NO_LINE = (0, 9)  # strokes of no length: points alone, in a frame whose other series are joined


@dataclass(frozen=True)
class Style:
    """How a series looks.

    Attributes
    ----------
    label : str
        What the legend calls it.
    colour : str
        Of line and points.
    dash : tuple of int
        Lengths of strokes and gaps of the line, pixels.
    shape : str
        Of points.
    hollow : bool
        Whether points and bars are outlines.
    """

    label: str
    colour: str
    dash: tuple[int, ...]
    shape: str
    hollow: bool = False


_KNOWN: dict[str, Style] = {
    # Methods, the same everywhere.
    "rtn": Style("rtn (nearest)", _VERMILION, _PLAIN, "circle"),
    "gptq": Style("gptq", _BLUE, _DASHED, "square"),
    "adaround": Style("adaround", _PURPLE, _DOTTED, "triangle-up"),
    "ste_qat": Style("ste_qat (gradient at Q(w))", _GREEN, _LONG, "diamond"),
    "noise_grad": Style("noise_grad (at w + noise)", _ORANGE, _DASHED, "triangle-up"),
    "latent_grad": Style("latent_grad (at w)", _BLUE, _DOTTED, "square"),
    "random_grad": Style("random_grad (random direction)", _BLACK, _DASH_DOT, "cross"),
    "ft_then_ptq": Style("ft_then_ptq", _PURPLE, _SHORT, "triangle-down"),
    # What is measured where a figure has other series than methods.
    "noise": Style("uniform noise of one step", _BLUE, _DASHED, "square"),
    "deployed": Style("deployed weights Q(w)", _VERMILION, _PLAIN, "circle"),
    "latent": Style("latent weights w", _BLUE, _DASHED, "square"),
    "fp->ptq": Style("full precision to rtn", _VERMILION, _PLAIN, "circle"),
    "fp->qat": Style("full precision to QAT", _GREEN, _DASHED, "diamond"),
    "ptq->qat": Style("rtn to QAT", _BLUE, _DOTTED, "square"),
    "entry": Style("first entry k*", _GREEN, _LONG, "diamond"),
    "bound": Style("bound of the theorem", _BLACK, _DASHED, "triangle-down"),
    "best": Style("QAT, best on the way", _BLUE, _DASHED, "square"),
    "late": Style("QAT, mean of the last fifth", _ORANGE, _DASH_DOT, "triangle-up"),
    "along the rounding error": Style("along the rounding error", _BLACK, _SHORT, "triangle-right"),
    "along normal noise": Style("along normal noise", _GREY, _DASH_DOT, "cross"),
    "random direction": Style("a random direction", _GREY, _DASH_DOT, "cross"),
    # What is foretold of methods, and what they gave: of one colour, hollow and filled.
    "rtn foretold": Style("rtn, foretold", _VERMILION, _PLAIN, "circle", hollow=True),
    "second_order foretold": Style("second-order, foretold", _BLUE, _DASHED, "square", hollow=True),
    "qat foretold": Style("QAT, foretold", _GREEN, _LONG, "diamond", hollow=True),
    "rtn measured": Style("rtn, measured", _VERMILION, _NO_LINE, "triangle-up"),
    "second_order measured": Style("second-order, measured", _BLUE, _NO_LINE, "cross"),
    "qat measured": Style("QAT, measured", _GREEN, _NO_LINE, "triangle-right"),
    "stand-ins": Style("random errors as large", _BLACK, _NO_LINE, "circle"),
    "edge": Style("beyond the frame, at its edge", _GREY, _NO_LINE, "triangle-down", hollow=True),
}

_COLOURS = (_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY, _BLACK, _GREY)
_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right", "triangle-left")
_DASHES = (_PLAIN, _DASHED, _DOTTED, _DASH_DOT, _LONG, _SHORT, (1, 3), (9, 2, 2, 2, 2, 2))


def styles(series: Iterable[str], looks: Mapping[str, Style] | None = None) -> dict[str, Style]:
    """Return the look of every series, known ones first in their own order, then the others sorted.

    Parameters
    ----------
    series : iterable of str
        Names, in any order.
    looks : mapping of str to Style, optional
        Looks that come before all known ones, in the order of the legend.
    """
    names = set(series)
    given = {name: style for name, style in (looks or {}).items() if name in names}
    names -= given.keys()
    found = {name: style for name, style in _KNOWN.items() if name in names}
    others = sorted(names - _KNOWN.keys())
    taken = [*given.values(), *found.values()]
    colours = _free(_COLOURS, {style.colour for style in taken})
    shapes = _free(_SHAPES, {style.shape for style in taken})
    dashes = _free(_DASHES, {style.dash for style in taken})
    for place, name in enumerate(others):
        # Shapes go round once more than colours do, so that two of one colour have other shapes.
        shape = shapes[(place + place // len(colours)) % len(shapes)]
        dash = dashes[(place + place // len(colours)) % len(dashes)]
        found[name] = Style(name, colours[place % len(colours)], dash, shape)
    return given | found


def _free(looks: Sequence[T], taken: Set[T]) -> list[T]:
    """Return looks that are not taken; all where none is left."""
    return [look for look in looks if look not in taken] or list(looks)


def looks_of_methods(methods: Mapping[str, tuple[str, bool]]) -> dict[str, Style]:
    """Return looks by which methods can be told apart, and those that train from those that do not.

    A method has the same colour in all figures, and variants of one method share it. Marks of methods that train
    are hollow.

    Parameters
    ----------
    methods : mapping of str to (str, bool)
        Label of each method, in the order of the legend: what the legend calls it, and whether it trains.
    """
    found: dict[str, Style] = {}
    colours: dict[str, str] = {}
    for label, (name, trains) in methods.items():
        base = label.partition("[")[0]
        rest = [colour for colour in _COLOURS if colour not in {*colours.values(), *(k[0] for k in _METHODS.values())}]
        colour, shape, dash = _METHODS.get(
            base, ((rest or _COLOURS)[0], _SHAPES[len(found) % 8], _DASHES[len(found) % 8])
        )
        colours.setdefault(base, colour)
        taken = {(style.shape, style.hollow) for style in found.values()}
        if (shape, trains) in taken:
            shape = next((one for one in _SHAPES if (one, trains) not in taken), shape)
        dashes = {style.dash for style in found.values()}
        if dash in dashes:
            dash = next((one for one in _DASHES if one not in dashes), dash)
        found[label] = Style(name, colours[base], dash, shape, hollow=trains)
    return found


_METHODS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "rtn": (_VERMILION, "circle", _PLAIN),
    "gptq": (_BLUE, "square", _DASHED),
    "adaround": (_PURPLE, "triangle-up", _DOTTED),
    "brecq": (_ORANGE, "triangle-down", _DASH_DOT),
    "block_ap": (_GREY, "triangle-right", _SHORT),
    "ste_qat": (_GREEN, "diamond", _LONG),
    "lsq": (_SKY, "square", (1, 3)),
}
"""Colour, shape and dash of methods where all of them are drawn together."""

DARK: Mapping[str, str] = {
    GROUND: "#14181c",
    INK: "#e8e8e8",
    SOFT: "#a6a6a6",
    FAINT: "#32383e",
    FRAME: "#555c63",
    SHADE: "#8d8d8d",
    _BLACK: "#f2f2f2",
    _ORANGE: "#E69F00",
    _SKY: "#8CCBF2",
    _GREEN: "#2BB58A",
    _BLUE: "#4FA3DC",
    _VERMILION: "#E8762C",
    _PURPLE: "#D98CB6",
    _GREY: "#9a9a9a",
}
"""Every colour of a specification, and what stands for it on dark ground."""


def config() -> dict[str, Any]:
    """Return the part of a Vega-Lite specification that all figures share."""
    return {
        "font": FONT,
        "background": GROUND,
        "padding": 14,
        "title": {
            "anchor": "start",
            "frame": "group",
            "font": FONT,
            "fontSize": 14,
            "fontWeight": "bold",
            "color": INK,
            "subtitleFont": FONT,
            "subtitleFontSize": 11,
            "subtitleColor": SOFT,
            "subtitlePadding": 6,
            "subtitleLineHeight": 15,
            "offset": 16,
        },
        "axis": {
            "labelFont": FONT,
            "titleFont": FONT,
            "labelFontSize": 10,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "labelColor": INK,
            "titleColor": INK,
            "gridColor": FAINT,
            "domainColor": SOFT,
            "tickColor": SOFT,
            "labelOverlap": "greedy",
            "labelFlush": False,
            "titlePadding": 7,
        },
        "legend": {
            "labelFont": FONT,
            "labelFontSize": 11,
            "labelColor": INK,
            "labelLimit": 340,
            "symbolSize": 70,
            "symbolOpacity": 1,
            "symbolStrokeWidth": 2,
            "columnPadding": 22,
            "rowPadding": 4,
            "offset": 14,
        },
        "aria": False,
        "view": {"stroke": FRAME},
        "concat": {"spacing": 26},
    }

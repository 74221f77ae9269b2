"""From a figure to a Vega-Lite specification, and from that to SVG and PNG."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any, Literal, cast

from qbench.errors import QBenchError
from qbench.report.figures import grounds, lines, theme, whiskers
from qbench.report.figures.bars import bars
from qbench.report.figures.encoding import frame
from qbench.report.figures.figure import Bars, Figure, Panel

Format = Literal["svg", "png"]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_SIZES = {1: (500, 310), 2: (340, 240), 3: (255, 200)}
_LETTER, _PANEL_LETTER, _SMALL_LETTER = 7.6, 6.3, 5.5  # pixels: of titles, those of panels, and subtitles
_BESIDE = 60  # pixels to the right of bars
_SHARP = 2.0  # pixels of a PNG for each of the drawing


def specification(figure: Figure) -> dict[str, Any]:
    """Return a figure as a Vega-Lite specification with its data: plain JSON, the same for equal figures."""
    size = figure.size or _SIZES[min(figure.columns, 3)]
    series = [name for panel in figure.panels for name in panel.series]
    styles = theme.styles(series, figure.looks)
    panels = [_panel(panel, styles, size) for panel in figure.panels]
    # A panel with a title of its own takes no second one.
    alone = len(panels) == 1 and not figure.panels[0].title
    room = figure.columns * (size[0] + 70) + 20
    told = [line for text in (figure.of, *figure.notes) for line in textwrap.wrap(text, int(room / _SMALL_LETTER))]
    return {
        "$schema": _SCHEMA,
        "title": {"text": textwrap.wrap(figure.title, int(room / _LETTER)), "subtitle": told},
        **(panels[0] if alone else {"concat": panels, "columns": figure.columns}),
        "config": theme.config(),
    }


def claim_of(figure: Figure) -> str | None:
    """Return the id of the claim that a figure belongs to, ``C1`` or ``T1``; None of figures of a board or a cell."""
    found = re.match(r"([CT])0*(\d+)_", figure.name)
    return None if found is None else found[1] + found[2]


def image(spec: Mapping[str, Any], form: Format) -> bytes:
    """Return the picture of a specification, the same bytes each time; nothing is fetched.

    Raises
    ------
    QBenchError
        The drawing library is missing.
    """
    converter = _converter()
    version = converter.get_vegalite_versions()[-1]
    if form == "svg":
        return _renumbered(converter.vegalite_to_svg(dict(spec), vl_version=version)).encode()
    return cast(bytes, converter.vegalite_to_png(dict(spec), vl_version=version, scale=_SHARP))


def _renumbered(svg: str) -> str:
    """Return an SVG whose clip paths are numbered from 1: the converter counts on from picture to picture."""
    numbers: dict[str, int] = {}
    return re.sub(r"\bclip(\d+)\b", lambda found: f"clip{numbers.setdefault(found[1], len(numbers) + 1)}", svg)


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError as missing:
        raise QBenchError("figures need vl-convert-python: pip install qbench[report]") from missing
    return vl_convert


def _panel(panel: Panel | Bars, styles: Mapping[str, theme.Style], size: tuple[int, int]) -> dict[str, Any]:
    if isinstance(panel, Bars):
        drawn = bars(panel, styles, size[0])
    else:
        layers = [*grounds.bands(panel), *grounds.guides(panel), *grounds.levels(panel, styles)]
        layers += [*lines.curves(panel, styles), *whiskers.trends(panel, styles, size)]
        drawn = {"width": size[0], "height": size[1], "encoding": frame(panel), "layer": layers}
    if not panel.title:
        return drawn
    # Beside bars there are words, which titles may stand above.
    width = int((size[0] + (_BESIDE if isinstance(panel, Bars) else 0)) / _PANEL_LETTER)
    words = [line for part in panel.title.splitlines() for line in textwrap.wrap(part, width, break_long_words=False)]
    return {"title": {"text": words, "fontSize": 11, "fontWeight": "bold", "offset": 8}, **drawn}

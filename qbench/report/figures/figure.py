"""What a figure shows, before anything is drawn: panels, curves, levels, guides and bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from qbench.report.figures.estimates import Bar, Front, Trend
from qbench.report.figures.theme import Style

Scale = Literal["linear", "log", "symlog"]


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes
    ----------
    title : str
        With the unit.
    scale : str
        ``linear``, ``log`` or ``symlog`` (linear up to `constant`, logarithmic beyond, on both sides of 0).
    constant : float
        Where ``symlog`` turns.
    ticks : tuple of float
        Where ticks are; empty leaves it to the drawing.
    falling : bool
        Whether values fall to the right, as bits do.
    low, high : float or None
        What the frame is cut at; None shows everything.
    """

    title: str
    scale: Scale = "linear"
    constant: float = 1.0
    ticks: tuple[float, ...] = ()
    falling: bool = False
    low: float | None = None
    high: float | None = None

    def shows(self, value: float) -> bool:
        """Return whether the axis has a place for a value."""
        return math.isfinite(value) and (self.scale != "log" or value > 0)

    def cuts(self, value: float) -> bool:
        """Return whether a value lies beyond the frame."""
        return (self.low is not None and value < self.low) or (self.high is not None and value > self.high)

    def stretched(self, value: float) -> float:
        """Return where a value lies, up to a factor and a shift that all values have in common."""
        if self.scale == "log":
            return math.log(value)
        if self.scale == "symlog":
            return math.copysign(math.log1p(abs(value) / self.constant), value)
        return value


@dataclass(frozen=True)
class Curve:
    """What one seed has of one series.

    Attributes
    ----------
    series : str
        Its name in `qbench.report.figures.theme`, or any other.
    seed : int
        The seed.
    x, y : tuple of float
        Of equal length.
    keys : tuple of float
        What is the same in all seeds at each place, to take means over; `x` where it is empty.
    labels : tuple of str
        Words beside the places of the mean; empty for none.
    """

    series: str
    seed: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    keys: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Level:
    """A straight line across a panel, at a value of one axis.

    Attributes
    ----------
    axis : str
        ``x`` or ``y``: whose value it is.
    value : float
        Where.
    name : str
        Words beside it; empty where `series` says what it is.
    series : str or None
        Whose colour it has; None for grey.
    """

    axis: Literal["x", "y"]
    value: float
    name: str = ""
    series: str | None = None


@dataclass(frozen=True)
class Guide:
    """A grey line that is no measurement, or a threshold that moves: a diagonal, a slope, tau by bits."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Band:
    """A grey area between two lines, with a word for it."""

    name: str
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One frame.

    Attributes
    ----------
    title : str
        What tells it from the other panels of the figure.
    x, y : Axis
        Its axes.
    curves : tuple of Curve
        Measurements, any number of series and seeds.
    joined : bool
        Whether places of a curve are joined by lines, and means are taken over seeds; points alone where not.
    levels, guides, bands
        What measurements are held against.
    trends : tuple of Trend
        Estimates whose mean and interval are known already; `joined` counts for them too.
    fronts : tuple of Front
        The best of them.
    """

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    joined: bool = True
    levels: tuple[Level, ...] = ()
    guides: tuple[Guide, ...] = ()
    bands: tuple[Band, ...] = ()
    trends: tuple[Trend, ...] = ()
    fronts: tuple[Front, ...] = ()

    @property
    def places(self) -> list[tuple[float, float]]:
        """Return x and y of every measurement."""
        measured = [place for curve in self.curves for place in zip(curve.x, curve.y, strict=True)]
        return measured + [(one.x, one.y) for trend in self.trends for one in trend.estimates]

    @property
    def empty(self) -> bool:
        """Whether no measurement has a place in the frame."""
        return not any(self.x.shows(x) and self.y.shows(y) for x, y in self.places)

    @property
    def series(self) -> list[str]:
        """Return the series that are drawn in it, each once."""
        return list(dict.fromkeys([*(curve.series for curve in self.curves), *(trend.series for trend in self.trends)]))

    def means(self) -> list[Curve]:
        """Return the mean over seeds of every series, at the keys that all its seeds have; ``seed`` is their number.

        On a logarithmic axis x has its geometric mean; y always has its arithmetic one, as everywhere in reports.
        """
        found = []
        for series in dict.fromkeys(curve.series for curve in self.curves):
            held = [curve for curve in self.curves if curve.series == series]
            tables = [_table(curve) for curve in held]
            shared = [key for key in tables[0] if all(key in table for table in tables)]
            rows = [[table[key] for table in tables] for key in shared]
            xs = tuple(_mean([x for x, _, _ in row], self.x.scale == "log") for row in rows)
            ys = tuple(_mean([y for _, y, _ in row]) for row in rows)
            labels = tuple(row[0][2] for row in rows) if held[0].labels else ()
            found.append(Curve(series, len(held), xs, ys, tuple(shared), labels))
        return found


@dataclass(frozen=True)
class Bars:
    """A frame of horizontal bars, one below the other.

    Attributes
    ----------
    title : str
        What tells it from the other frames of the figure.
    x : Axis
        What bars measure.
    bars : tuple of Bar
        From the top; no two of one name.
    levels : tuple of Level
        What they are held against; of ``x``.
    named : bool
        Whether names stand beside bars; not where the frame to the left has the same ones.
    """

    title: str
    x: Axis
    bars: tuple[Bar, ...]
    levels: tuple[Level, ...] = ()
    named: bool = True

    @property
    def empty(self) -> bool:
        """Whether no bar has a length."""
        return not any(self.x.shows(bar.value) for bar in self.bars)

    @property
    def series(self) -> list[str]:
        """Return the series that are drawn in it, each once."""
        return list(dict.fromkeys(bar.series for bar in self.bars))


@dataclass(frozen=True)
class Figure:
    """A claim, drawn.

    Attributes
    ----------
    name : str
        The file's name without its ending; begins with the claim.
    title : str
        In plain words, with the claim.
    of : str
        Models, quantizers and seeds.
    notes : tuple of str
        How to read it.
    panels : tuple of Panel or Bars
        At most six; see `qbench.report.figures.paging`.
    columns : int
        Panels side by side.
    looks : mapping of str to Style
        How series look; those it does not name look as `qbench.report.figures.theme` says.
    size : (int, int) or None
        Width and height of each frame, pixels; None for what fits the columns.
    """

    name: str
    title: str
    of: str
    notes: tuple[str, ...]
    panels: tuple[Panel | Bars, ...]
    columns: int = 2
    looks: Mapping[str, Style] = field(default_factory=dict)
    size: tuple[int, int] | None = None


def _table(curve: Curve) -> dict[float, tuple[float, float, str]]:
    """Return x, y and label by key."""
    labels = curve.labels or ("",) * len(curve.x)
    return dict(zip(curve.keys or curve.x, zip(curve.x, curve.y, labels, strict=True), strict=True))


def _mean(values: Sequence[float], geometric: bool = False) -> float:
    if geometric and all(value > 0 for value in values):
        return math.exp(math.fsum(map(math.log, values)) / len(values))
    return math.fsum(values) / len(values)

"""What a figure shows, before anything is drawn: panels, curves, levels, guides and bands."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from qbench.claims.subject import Subject

MOST_PANELS = 6
_MOST_NAMES = 3  # of quantizers in a subtitle; panels have theirs

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
    """

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    joined: bool = True
    levels: tuple[Level, ...] = ()
    guides: tuple[Guide, ...] = ()
    bands: tuple[Band, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether no measurement has a place in the frame."""
        return not any(
            self.x.shows(x) and self.y.shows(y) for curve in self.curves for x, y in zip(curve.x, curve.y, strict=True)
        )

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
    panels : tuple of Panel
        At most six; see `pages`.
    columns : int
        Panels side by side.
    """

    name: str
    title: str
    of: str
    notes: tuple[str, ...]
    panels: tuple[Panel, ...]
    columns: int = 2


@dataclass
class Sheet:
    """Panels of one subject that stay together, beside the subject they are of.

    Attributes
    ----------
    subject : Subject
        The model and quantizer.
    panels : list of Panel
        At most six.
    models : tuple of str
        Further models whose measurements are in them.
    """

    subject: Subject
    panels: list[Panel] = field(default_factory=list)
    models: tuple[str, ...] = ()


def pages(
    name: str, title: str, notes: Sequence[str], sheets: Iterable[Sheet], columns: int = 2, *, titled: bool = False
) -> list[Figure]:
    """Return a figure, or several where there are too many panels for one; none where there is no panel.

    Parameters
    ----------
    name, title, notes
        See `Figure`; of several figures the second is called ``name_2``.
    sheets : iterable of Sheet
        Panels in the order they are drawn. Those of one sheet stay in one figure.
    columns : int
        Panels side by side, where there are as many.
    titled : bool
        Whether a panel keeps its title where it is alone and the subtitle names model and quantizer already.
    """
    found: list[list[Sheet]] = []
    for sheet in sheets:
        kept = [_in_units_of(sheet.subject, panel) for panel in sheet.panels if not panel.empty]
        if not kept:
            continue
        if not found or sum(len(one.panels) for one in found[-1]) + len(kept) > MOST_PANELS:
            found.append([])
        found[-1].append(replace(sheet, panels=kept))
    figures = []
    for number, page in enumerate(found, start=1):
        panels = [panel for sheet in page for panel in sheet.panels]
        if len(panels) == 1 and not titled:
            panels = [replace(panels[0], title="")]
        figures.append(
            Figure(
                name if number == 1 else f"{name}_{number}",
                title,
                _subtitle(page),
                (*notes, *_remarks(panels)),
                tuple(panels),
                min(columns, len(panels)),
            )
        )
    return figures


def _in_units_of(subject: Subject, panel: Panel) -> Panel:
    """Return a panel with the unit of its losses: those of landscapes are no logarithms of probabilities."""
    if "valley" not in subject.facts:
        return panel
    x, y = (replace(axis, title=axis.title.replace("(nats)", "(loss units)")) for axis in (panel.x, panel.y))
    return replace(panel, x=x, y=y)


def brief(label: str) -> str:
    """Return a label with its numbers to four digits: ``lattice[step=0.3897]``."""
    return re.sub(r"\d+\.\d{5,}", lambda found: f"{float(found[0]):.4g}", label)


def _subtitle(page: Sequence[Sheet]) -> str:
    models = list(dict.fromkeys(brief(name) for sheet in page for name in (sheet.subject.model, *sheet.models)))
    quantizers = list(dict.fromkeys(brief(sheet.subject.quantizer) for sheet in page))
    seeds = sorted({curve.seed for sheet in page for panel in sheet.panels for curve in panel.curves})
    grids = f"{len(quantizers)} quantizers" if len(quantizers) > _MOST_NAMES else _listed("quantizer", quantizers)
    return "; ".join([_listed("Model", models), grids, _listed("seed", list(map(str, seeds)))]) + "."


def _listed(kind: str, names: Sequence[str]) -> str:
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _remarks(panels: Sequence[Panel]) -> list[str]:
    """Return what has to be said of all figures alike."""
    remarks = []
    if any(mean.seed > 1 for panel in panels if panel.joined for mean in panel.means()):
        remarks.append("Thick: mean over seeds, where all have a value. Thin: each seed.")
    places = [(panel, x, y) for panel in panels for curve in panel.curves for x, y in _places(curve)]
    lost = sum(not (panel.x.shows(x) and panel.y.shows(y)) for panel, x, y in places)
    if lost:
        remarks.append(f"Not shown: {lost} value{'s' if lost > 1 else ''} at or below 0, or not finite.")
    cut = sum(panel.x.cuts(x) or panel.y.cuts(y) for panel, x, y in places)
    if cut:
        remarks.append(f"{cut} value{'s lie' if cut > 1 else ' lies'} beyond the frame.")
    return remarks


def _places(curve: Curve) -> Iterable[tuple[float, float]]:
    return zip(curve.x, curve.y, strict=True)


def _table(curve: Curve) -> dict[float, tuple[float, float, str]]:
    """Return x, y and label by key."""
    labels = curve.labels or ("",) * len(curve.x)
    return dict(zip(curve.keys or curve.x, zip(curve.x, curve.y, labels, strict=True), strict=True))


def _mean(values: Sequence[float], geometric: bool = False) -> float:
    if geometric and all(value > 0 for value in values):
        return math.exp(math.fsum(map(math.log, values)) / len(values))
    return math.fsum(values) / len(values)

"""Panels of many subjects, put on pages: which stand in one figure, and what is said of all figures alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from qbench.claims.subject import Subject
from qbench.report.figures.figure import Curve, Figure, Panel

MOST_PANELS = 6
_MOST_NAMES = 3  # of quantizers in a subtitle; panels have theirs


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

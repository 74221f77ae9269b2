"""C13: how far methods move weights, and how much of it along the steepest directions."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.points import point_of
from qbench.claims.subject import Subject
from qbench.claims.thresholds import NEAREST_RMS
from qbench.report.figures.axes import bits_axis
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, present, probe, where

_METHODS = ("rtn", "gptq", "adaround")
_MOST = 0.5  # of all directions: where the top space is half of all there are no others to hold it against


def distance(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the RMS error in steps, and its share in the top space, by bits."""
    sheets = []
    for subject in subjects:
        bits = bits_of(subject, "curvature")
        steps, shares = _curves(subject, bits, "step_rms"), _curves(subject, bits, "top_share")
        null = [
            Curve("random direction", curve.seed, curve.x, curve.y) for curve in _plain(subject, bits, "null/top_share")
        ]
        if any(share >= _MOST for curve in null for share in curve.y):
            continue
        away = Panel(
            where(subject),
            bits_axis(bits),
            Axis("RMS of (q - w) / Δ (steps)"),
            tuple(steps),
            levels=(Level("y", NEAREST_RMS, "1/√12"),),
        )
        top = Panel(
            f"{where(subject)}\nsteep directions",
            bits_axis(bits),
            Axis("share of |e|² in the top Gauss-Newton space", "log"),
            (*shares, *null),
        )
        sheets.append(Sheet(subject, [away, top]))
    notes = [
        "1/√12: nearest rounding without clipping. Steep directions: the space of the largest eigenvalues found by "
        "Lanczos; a random direction has k / size."
    ]
    title = "C13: does second-order rounding pay in distance and in flat directions?"
    return pages("C13_distance", title, notes, sheets)


def _curves(subject: Subject, bits: Sequence[int], what: str) -> list[Curve]:
    curves = []
    for method in _METHODS:
        for seed in subject.seeds:
            rows = []
            for width in bits:
                record = probe(subject, seed, width, "curvature")
                label = None if record is None else present(point_of, record, method)
                if record is not None and label is not None and f"{label}/{what}" in record.metrics:
                    rows.append((float(width), record.metrics[f"{label}/{what}"]))
            if rows:
                x, y = zip(*rows, strict=True)
                curves.append(Curve(method, seed, x, y))
    return curves


def _plain(subject: Subject, bits: Sequence[int], name: str) -> list[Curve]:
    curves = []
    for seed in subject.seeds:
        held = [(width, probe(subject, seed, width, "curvature")) for width in bits]
        rows = [(float(width), one.metrics[name]) for width, one in held if one is not None and name in one.metrics]
        if rows:
            x, y = zip(*rows, strict=True)
            curves.append(Curve(name, seed, x, y))
    return curves

"""C3: what the local expansion foretells, against what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.points import point_of
from qbench.claims.subject import Subject
from qbench.report.figures.figure import Axis, Curve, Figure, Guide, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, present, probe, where

_METHODS = ("rtn", "gptq", "adaround")
_FORMS = (("hessian", "Hessian"), ("gauss_newton", "Gauss-Newton"))


def quadratic(subjects: Sequence[Subject]) -> list[Figure]:
    """Return measured excess against the quadratic's, and against Gauss-Newton's."""
    sheets = []
    for subject in subjects:
        found = {form: _curves(subject, form) for form, _ in _FORMS}
        # Both frames of a subject have the same ends, so that they can be held against each other.
        ends = [value for curves in found.values() for curve in curves for value in (*curve.x, *curve.y) if value > 0]
        if not ends:
            continue
        panels = [
            Panel(
                f"{where(subject)}\n{words}",
                Axis(f"gradient and {words} terms at w_fp (nats)", "log"),
                Axis("measured excess loss D (nats)", "log"),
                tuple(found[form]),
                guides=(Guide("equal", (min(ends), max(ends)), (min(ends), max(ends))),),
            )
            for form, words in _FORMS
        ]
        sheets.append(Sheet(subject, panels))
    notes = [
        "Above the diagonal quantization costs more than the second-order expansion at w_fp says. Both on the same "
        "samples. Numbers: bits, of rtn.",
    ]
    title = "C3: does the local quadratic underestimate the cost of quantization?"
    return pages("C03_quadratic", title, notes, sheets)


def _curves(subject: Subject, form: str) -> list[Curve]:
    curves = []
    for method in _METHODS:
        for seed in subject.seeds:
            rows = []
            for bits in bits_of(subject, "curvature"):
                record = probe(subject, seed, bits, "curvature")
                label = None if record is None else present(point_of, record, method)
                if record is None or label is None:
                    continue
                names = [f"{label}/{name}" for name in ("linear", form, "subset_excess")]
                if all(name in record.metrics for name in names):
                    linear, half, measured = (record.metrics[name] for name in names)
                    rows.append((linear + half, measured, float(bits)))
            if rows:
                x, y, keys = zip(*rows, strict=True)
                labels = tuple(f"{bits:.0f}" for bits in keys) if method == "rtn" else ()
                curves.append(Curve(method, seed, x, y, keys, labels))
    return curves

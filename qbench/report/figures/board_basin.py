"""The basin's radius, as the probe `radius` measured it, and how far methods move the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qbench.claims.curves import crossing
from qbench.claims.points import point_of
from qbench.claims.subject import Subject, subjects
from qbench.report.figures.axes import bits_axis
from qbench.report.figures.board_parts import Shelf, spread_pages
from qbench.report.figures.figure import Axis, Curve, Figure, Panel
from qbench.report.figures.places import bits_of, present, probe
from qbench.store.record import Record

_RADII = {"radius along rounding": "rtn", "radius along noise": "gaussian"}
_OTHERS = ("gptq", "adaround")


def basins(records: Iterable[Record], held: Sequence[Shelf]) -> list[Figure]:
    """Return, of each model that `radius` was measured of, the length of the rounding error and the radius by bits."""
    of_models: dict[str, list[Subject]] = {}
    for subject in subjects(records):
        of_models.setdefault(subject.model, []).append(subject)
    figures = []
    for shelf in held:
        panels = [panel for subject in of_models.get(shelf.model, []) if (panel := _panel(shelf, subject)) is not None]
        notes = [
            "Rounding leaves the basin where its error is longer than the radius. Radius: how far from full precision "
            "the loss rises by the tolerance, along the rounding error or along normal noise as long in each layer; "
            "not drawn where it lies beyond four errors or within a quarter of one.",
        ]
        title = f"{shelf.name}: how far methods move the weights, and how far the basin reaches"
        figures += spread_pages(f"basin_{shelf.file}", title, "One value a seed, and their mean.", notes, panels, {})
    return figures


def _panel(shelf: Shelf, subject: Subject) -> Panel | None:
    bits = bits_of(subject, "radius")
    curves = []
    for seed in subject.seeds:
        rows: dict[str, list[tuple[float, float]]] = {}
        for width in bits:
            for series, length in _lengths(subject, seed, width).items():
                rows.setdefault(series, []).append((float(width), length))
        for series, found in rows.items():
            x, y = zip(*found, strict=True)
            curves.append(Curve(series, seed, x, y))
    if not curves:
        return None
    return Panel(
        shelf.quantizers.get(subject.quantizer, subject.quantizer),
        bits_axis(bits),
        Axis("distance from full precision |q - w| (weight units)", "log"),
        tuple(sorted(curves, key=lambda curve: (curve.series, curve.seed))),
    )


def _lengths(subject: Subject, seed: int, bits: int) -> dict[str, float]:
    """Return the lengths that are known at some bits, by series."""
    record = probe(subject, seed, bits, "radius")
    if record is None:
        return {}
    found = {"rtn": record.metrics["distance"]}
    for series, kind in _RADII.items():
        at = crossing(record.traces["scale"], record.traces[f"{kind}/excess"], subject.tolerance)
        if at is not None:
            found[series] = at * record.metrics["distance"]
    curvature = probe(subject, seed, bits, "curvature")
    for method in _OTHERS:
        label = None if curvature is None else present(point_of, curvature, method)
        if curvature is not None and label is not None and f"{label}/distance" in curvature.metrics:
            found[method] = curvature.metrics[f"{label}/distance"]
    return found

"""The basin's radius, as the probe `radius` measured it, and how far methods move the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from qbench.claims.curves import crossing
from qbench.claims.points import point_of
from qbench.claims.subject import Subject, subjects
from qbench.report.figures.axes import bits_axis, change_axis, round_numbers
from qbench.report.figures.board_parts import Shelf, spread_pages
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.places import bits_of, present, probe
from qbench.store.record import Record

_METHODS = ("rtn", "gptq", "adaround", "ste_qat")
_WALKS = {"along the rounding error": "rtn", "along normal noise": "gaussian"}
_DISTANCE = "distance |q - w| from fp (weight units)"


def basins(records: Iterable[Record], held: Sequence[Shelf]) -> list[Figure]:
    """Return, of each model that `radius` was measured of, distances by bits and the loss by distance.

    Parameters
    ----------
    records : iterable of Record
        With probes.
    held : sequence of Shelf
        The models.
    """
    of_models: dict[str, list[Subject]] = {}
    for subject in subjects(records):
        of_models.setdefault(subject.model, []).append(subject)
    figures = []
    for shelf in held:
        panels = [panel for subject in of_models.get(shelf.model, []) for panel in _panels(shelf, subject)]
        notes = [
            "Left: rounding leaves the basin where its error is longer than the radius, the distance at which the loss "
            "has risen by τ on the straight line along the rounding error, or along normal noise as long in each "
            "layer. Right: the loss on both lines, and of each method where it ends; numbers are bits. Methods that "
            "lose less at a greater distance do not go straight.",
        ]
        title = f"{shelf.name}: how far weights are moved, and how far the basin reaches"
        figures += spread_pages(f"basin_{shelf.file}", title, shelf.seeds, notes, panels, {})
    return figures


def _panels(shelf: Shelf, subject: Subject) -> list[Panel]:
    walks = _walks(subject)
    places = _places(subject)
    if not walks or not places:
        return []
    name = shelf.quantizers.get(subject.quantizer, subject.quantizer)
    radii = _radii(subject, walks)
    bits = sorted({width for _, _, width in places}, reverse=True)
    pairs = sorted({(method, seed) for method, seed, _ in places}, key=lambda pair: (_METHODS.index(pair[0]), pair[1]))
    # That of the longest moves: to the right of it there is room for words.
    labelled = max(places, key=lambda place: places[place])[0]
    moved, lost = [], []
    for method, seed in pairs:
        rows = [(float(width), *places[method, seed, width]) for width in bits if (method, seed, width) in places]
        widths, away, excess = zip(*rows, strict=True)
        labels = tuple(f"{width:.0f}" for width in widths) if method == labelled else ()
        moved.append(Curve(method, seed, widths, away))
        lost.append(Curve(method, seed, away, excess, widths, labels))
    levels = [
        Level("y", radius, "radius" if number == 0 else "", series) for number, (series, radius) in enumerate(radii)
    ]
    return [
        Panel(f"{name}\nby bits", bits_axis(bits), Axis(_DISTANCE, "log"), tuple(moved), levels=tuple(levels)),
        Panel(
            f"{name}\nby distance",
            Axis(_DISTANCE, "log"),
            _loss(subject, [*walks, *lost]),
            (*walks, *lost),
            levels=(
                Level("y", subject.tolerance, "τ"),
                *(Level("x", radius, "", series) for series, radius in radii),
            ),
        ),
    ]


def _loss(subject: Subject, curves: Sequence[Curve]) -> Axis:
    """Return an axis with room below zero for words."""
    values = [value for curve in curves for value in curve.y if math.isfinite(value)]
    low, high = min(-0.5 * subject.tolerance, *values), max(values)
    ticks = round_numbers(0.0, high, subject.tolerance)
    axis = change_axis("excess loss D over fp (nats)", subject.tolerance)
    return replace(axis, low=low, high=high, ticks=ticks)


def _walks(subject: Subject) -> list[Curve]:
    """Return the losses along straight lines by distance, at the bits at which most lines leave the basin."""
    by_bits: dict[int, list[Curve]] = {}
    for bits in bits_of(subject, "radius"):
        for seed in subject.seeds:
            record = probe(subject, seed, bits, "radius")
            if record is not None:
                scales = record.traces["scale"]
                away = tuple(scale * record.metrics["distance"] for scale in scales)
                by_bits.setdefault(bits, []).extend(
                    Curve(series, seed, away, tuple(record.traces[f"{kind}/excess"]), tuple(scales))
                    for series, kind in _WALKS.items()
                )
    if not by_bits:
        return []
    best = max(by_bits, key=lambda bits: (sum(_radius(subject, curve) is not None for curve in by_bits[bits]), bits))
    return by_bits[best]


def _radius(subject: Subject, walk: Curve) -> float | None:
    return crossing(walk.x, walk.y, subject.tolerance)


def _radii(subject: Subject, walks: Sequence[Curve]) -> list[tuple[str, float]]:
    """Return the radius along each kind of line, the geometric mean over the seeds that have one."""
    found = []
    for series in _WALKS:
        radii = [radius for walk in walks if walk.series == series and (radius := _radius(subject, walk)) is not None]
        if radii:
            found.append((series, math.exp(sum(map(math.log, radii)) / len(radii))))
    return found


def _places(subject: Subject) -> dict[tuple[str, int, int], tuple[float, float]]:
    """Return distance and excess of what methods ended at, by method, seed and bits, where probes measured both."""
    found: dict[tuple[str, int, int], tuple[float, float]] = {}
    for bits in bits_of(subject, "radius", "curvature", "segments"):
        for seed in subject.seeds:
            for name in ("curvature", "segments"):
                record = probe(subject, seed, bits, name)
                if record is None:
                    continue
                for method in _METHODS:
                    label = present(point_of, record, method)
                    if label is None or f"{label}/distance" not in record.metrics:
                        continue
                    place = record.metrics[f"{label}/distance"], record.metrics[f"{label}/excess"]
                    found.setdefault((method, seed, bits), place)
    return found

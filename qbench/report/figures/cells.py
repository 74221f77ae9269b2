"""Figures of one cell: how its training went, and what it did to each layer."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from qbench.report.figures.estimates import Bar
from qbench.report.figures.figure import Axis, Bars, Curve, Figure, Panel
from qbench.store.record import Record

_MOST_PLACES = 100  # of a curve
_PLACES = ("trajectory/step", "t", "scale", "step", "factor")
_SPREADS = ("se", "spread")  # of others' means
_SIZE = (300, 170)
_WIDTH = 180  # of bars


def cell_figures(record: Record) -> list[Figure]:
    """Return small figures of one record: its traces, and the errors of its layers in the order of the model.

    Parameters
    ----------
    record : Record
        Of a method or of a probe; one that is not ``ok`` may have none.
    """
    figures = [figure for figure in _traces(record) if not all(panel.empty for panel in figure.panels)]
    return [*figures, *([_layers(record)] if record.layers else [])]


def _layers(record: Record) -> Figure:
    names = _short([layer.name for layer in record.layers])
    weights = Bars(
        "weights", Axis("|W - Wq|² / |W|²", low=0.0), _bars(names, [layer.weight_error for layer in record.layers])
    )
    outputs = Bars(
        "outputs",
        Axis("|WX - WqX|² / |WX|²", low=0.0),
        _bars(names, [layer.output_error for layer in record.layers]),
        named=False,
    )
    return Figure("layers", "Error of each layer", "", (), (weights, outputs), 2, size=(_WIDTH, 0))


def _bars(names: Sequence[str], values: Sequence[float]) -> tuple[Bar, ...]:
    return tuple(Bar(name, "layer", value, text=f"{value:.2g}") for name, value in zip(names, values, strict=True))


def _short(names: Sequence[str]) -> list[str]:
    """Return names without the parts that all begin with."""
    parts = [name.split(".") for name in names]
    common = 0
    while len(names) > 1 and all(len(one) > common + 1 for one in parts) and len({one[common] for one in parts}) == 1:
        common += 1
    return [".".join(one[common:]) for one in parts]


def _traces(record: Record) -> list[Figure]:
    """Return a figure for each kind of trace."""
    seed = int(record.axes.get("seed") or 0)
    kinds: dict[tuple[str, str], list[Curve]] = {}
    widths: dict[tuple[str, str], int] = {}
    for name, values in sorted(record.traces.items()):
        if name in _PLACES or len(values) < 2 or re.split("[/_]", name)[-1] in _SPREADS:
            continue
        place = next((at for at in _PLACES if len(record.traces.get(at, ())) == len(values)), "")
        x = record.traces[place] if place else [float(step) for step in range(1, len(values) + 1)]
        kind, series = _kind(name, place)
        width = -(-len(values) // _MOST_PLACES)
        widths[kind, place] = max(width, widths.get((kind, place), 1))
        kinds.setdefault((kind, place), []).append(Curve(series, seed, _averaged(x, width), _averaged(values, width)))
    figures = []
    for (kind, place), curves in sorted(kinds.items()):
        axis = Axis(place.rpartition("/")[2] or "step", "log" if place in ("step", "factor", "scale") else "linear")
        notes = (f"Means over {widths[kind, place]} steps each.",) if widths[kind, place] > 1 else ()
        panel = Panel("", axis, Axis(kind), tuple(curves))
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", kind)
        figures.append(Figure(f"trace_{name}", kind.replace("_", " "), "", notes, (panel,), 1, size=_SIZE))
    return figures


def _kind(name: str, place: str) -> tuple[str, str]:
    """Return what a trace measures, and of what: traces that measure the same share a frame."""
    first, _, last = name.rpartition("/")
    if place == "t":
        return "excess loss", name
    if last == "excess":
        return "excess loss", first
    if first == "trajectory":
        return "excess loss while training", last
    if first.startswith("trajectory"):
        return f"{last} while training", last
    return (first, last) if first else (last, last)


def _averaged(values: Sequence[float], width: int) -> tuple[float, ...]:
    """Return means over runs of values."""
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return tuple(math.fsum(part) / len(part) if all(map(math.isfinite, part)) else math.nan for part in parts)

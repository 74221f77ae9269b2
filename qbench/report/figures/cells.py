"""Figures of one cell: how its training went, and what it did to each layer."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.report.figures.estimates import Bar
from qbench.report.figures.figure import Axis, Bars, Curve, Figure, Panel
from qbench.store.record import Record

_MOST_PLACES = 100  # of a curve
_PLACES = ("trajectory/step", "t", "scale", "step", "factor")
_SIZE = (300, 170)


def cell_figures(record: Record) -> list[Figure]:
    """Return small figures of one record: its traces, and the errors of its layers in the order of the model.

    Parameters
    ----------
    record : Record
        Of a method or of a probe; one that is not ``ok`` may have none.
    """
    title = record.label
    figures = [
        Figure("traces", title, "", notes, (panel,), 1, size=_SIZE)
        for panel, notes in _traces(record)
        if not panel.empty
    ]
    if record.layers:
        frames = (
            Bars("error of weights |W - Wq|² / |W|²", Axis("share", low=0.0), _bars(record, "weight_error")),
            Bars("error of outputs |WX - WqX|² / |WX|²", Axis("share", low=0.0), _bars(record, "output_error")),
        )
        figures.append(Figure("layers", title, "", (), frames, 2, size=(190, 0)))
    return figures


def _bars(record: Record, name: str) -> tuple[Bar, ...]:
    return tuple(
        Bar(layer.name, "layer", getattr(layer, name), text=f"{getattr(layer, name):.2g}") for layer in record.layers
    )


def _traces(record: Record) -> list[tuple[Panel, tuple[str, ...]]]:
    """Return a panel for each kind of trace, and what is to be said of it."""
    seed = int(record.axes.get("seed") or 0)
    kinds: dict[tuple[str, str], list[Curve]] = {}
    windows = 1
    for name, values in sorted(record.traces.items()):
        if name in _PLACES or len(values) < 2 or name.endswith(("_se", "/se", "spread")):
            continue
        place = next((at for at in _PLACES if len(record.traces.get(at, ())) == len(values)), None)
        kind = name.rpartition("/")[0] or name
        x = record.traces[place] if place is not None else [float(step) for step in range(1, len(values) + 1)]
        width = -(-len(values) // _MOST_PLACES)
        windows = max(windows, width)
        kinds.setdefault((kind, place or "step"), []).append(
            Curve(name.rpartition("/")[2], seed, _averaged(x, width), _averaged(values, width))
        )
    note = (f"Means over up to {windows} places.",) if windows > 1 else ()
    return [
        (Panel(kind, Axis(place.rpartition("/")[2]), Axis(kind), tuple(curves)), note)
        for (kind, place), curves in sorted(kinds.items())
    ]


def _averaged(values: Sequence[float], width: int) -> tuple[float, ...]:
    """Return means over runs of values."""
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return tuple(sum(part) / len(part) for part in parts)

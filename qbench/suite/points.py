"""Which cells a probe reads the weights of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from qbench.suite.cell import Cell, label_of

Beside = tuple[dict[str, Cell], dict[str, list[Cell]]]
"""Cells of one model, grid and seed: by their method's full label, and by its name in the registry."""


def with_points(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells, those of probes with the cells that they read.

    A probe reads cells of its own model, quantizer, bits and seed. It is left out where a method that it names has no
    cell there, or none that runs.

    Parameters
    ----------
    cells : sequence of Cell
        Every cell of a suite.
    """
    if not any(cell.is_probe for cell in cells):
        yield from cells
        return
    beside: dict[tuple[object, ...], Beside] = {}
    for cell in cells:
        if cell.method is not None and cell.quantizer is not None:
            by_label, by_name = beside.setdefault(_place(cell), ({}, {}))
            by_label[label_of(cell.method)] = cell
            by_name.setdefault(cell.method.name, []).append(cell)
    for cell in cells:
        yield _found(cell, beside.get(_place(cell), ({}, {}))) if cell.is_probe else cell


def _place(cell: Cell) -> tuple[object, ...]:
    axes = cell.axes()
    return tuple(axes[axis] for axis in ("model", "quantizer", "bits", "seed"))


def _found(cell: Cell, beside: Beside) -> Cell:
    if cell.skip is not None:
        return cell
    asked: tuple[str, ...] = getattr(cell.probe, "points", ())
    points: dict[int, Cell] = {}
    by_label, by_name = beside
    for name in dict.fromkeys(asked):
        # A full label means that cell alone: `rtn` is rounding as it is, where there is also `rtn[bn=fold]`.
        own = [by_label[name]] if name in by_label else by_name.get(name, [])
        if not own:
            return replace(cell, skip=f"it reads the weights of {name}, which the suite has no cell of beside it")
        running = [one for one in own if one.skip is None]
        if not running:
            return replace(cell, skip=f"it reads the weights of {name}, which is skipped: {own[0].skip}")
        points |= {id(one): one for one in running}
    return replace(cell, points=tuple(points.values()))

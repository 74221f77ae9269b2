"""Which controls the rows of methods that train are read against."""

from __future__ import annotations

from collections.abc import Iterable

from qbench.suite.cell import Cell, label_of


def controls_of(cells: Iterable[Cell]) -> set[tuple[str, int, str]]:
    """Return the places of the controls that quantized cells are read against."""
    found = set()
    for cell in cells:
        control = None if cell.method is None else cell.method.control()
        if control is not None:
            found.add((label_of(cell.model), cell.seed, control.label()))
    return found


def control_place(cell: Cell) -> tuple[str, int, str]:
    """Return a control's own place, as `controls_of` names it."""
    return (label_of(cell.model), cell.seed, "" if cell.method is None else label_of(cell.method))

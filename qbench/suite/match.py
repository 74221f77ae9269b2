"""Which names a cell answers to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qbench.spec import Spec
from qbench.suite.cell import FP, Cell, label_of

Names = Mapping[str, frozenset[str]]
Place = tuple[str | int | None, ...]


def cell_names(cell: Cell) -> Names:
    """Return by axis every name that means this cell: registry name and full label; none where it has no such axis."""
    return {
        "model": _spec_names(cell.model),
        "quantizer": _spec_names(cell.quantizer),
        "bits": frozenset() if cell.bits is None else frozenset({str(cell.bits)}),
        "method": frozenset({FP}) if cell.procedure is None else _spec_names(cell.procedure),
        "seed": frozenset({str(cell.seed)}),
    }


def matches(names: Names, wanted: Mapping[str, Iterable[str]]) -> bool:
    """Return whether a cell has one of the wanted names on every axis that is asked about."""
    return all(not names[axis].isdisjoint(values) for axis, values in wanted.items())


def known_names(cells: Iterable[Names], axis: str) -> set[str]:
    """Return all names that cells have on an axis."""
    return set().union(*(names[axis] for names in cells))


def _spec_names(spec: Spec | None) -> frozenset[str]:
    return frozenset() if spec is None else frozenset({spec.name, label_of(spec)})

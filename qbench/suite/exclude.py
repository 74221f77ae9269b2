"""What a suite leaves out, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from qbench.errors import nearest
from qbench.suite.cell import FP, Cell
from qbench.suite.match import Place, cell_names
from qbench.suite.problems import shown
from qbench.suite.schema import Suite, When

_CELL_AXES = {"models": "model", "quantizers": "quantizer", "bits": "bits", "methods": "method", "seeds": "seed"}


def exclusion_reasons(suite: Suite, cells: Mapping[Place, Cell], *, seeds_replaced: bool) -> dict[Place, str]:
    """Return why cells are left out; where several exclusions mean a cell, the first one's reason.

    A full-precision cell is left out only with its whole row: an exclusion that names a quantizer, bits or a method
    does not mean it. Nor does one that names a quantizer or bits mean a control.

    Parameters
    ----------
    suite : Suite
        Its exclusions are read.
    cells : mapping of tuple to Cell
        All cells by `Cell.axes` values.
    seeds_replaced : bool
        Whether the cells have other seeds than the suite says; then an exclusion of seeds may mean none.

    Raises
    ------
    SuiteError
        An exclusion, or one of its values, means no cell.
    """
    if not suite.exclude:
        return {}
    # Cells by the names they answer to: an exclusion looks at those it may mean, not at every cell.
    named: dict[str, dict[str, set[Place]]] = {axis: {} for axis in _CELL_AXES.values()}
    for place, cell in cells.items():
        for axis, names in cell_names(cell).items():
            for name in names:
                named[axis].setdefault(name, set()).add(place)
    reasons: dict[Place, str] = {}
    for index, exclusion in enumerate(suite.exclude):
        axes = _axes(exclusion.when)
        for axis, values in axes.items():
            if axis != "seeds" or not seeds_replaced:
                _check_known(suite, index, axis, values, named[_CELL_AXES[axis]].keys() - {FP})
        hits = set.intersection(*(_with_any(named[_CELL_AXES[axis]], values) for axis, values in axes.items()))
        if not hits and not (seeds_replaced and "seeds" in axes):
            asked = ", ".join(f"{axis}={'|'.join(values)}" for axis, values in axes.items())
            asked = asked if len(asked) <= 200 else f"{asked[:197]}..."
            raise suite.error(("exclude", index, "when"), f"excludes nothing: no cell has all of {asked}")
        for place in hits:
            reasons.setdefault(place, exclusion.reason)
    return reasons


def _axes(when: When) -> dict[str, list[str]]:
    axes = {axis: [str(value) for value in getattr(when, axis)] for axis in _CELL_AXES}
    return {axis: values for axis, values in axes.items() if values}


def _with_any(places: Mapping[str, set[Place]], values: Iterable[str]) -> set[Place]:
    return set().union(*(places.get(value, set()) for value in values))


def _check_known(suite: Suite, index: int, axis: str, values: list[str], known: Set[str]) -> None:
    for position, value in enumerate(values):
        if value not in known:
            path = ("exclude", index, "when", axis, position)
            raise suite.error(path, f"{shown(value)} excludes nothing{nearest(value, known)}")

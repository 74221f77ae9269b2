"""What a suite leaves out, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qbench.errors import nearest
from qbench.suite.cell import FP, Cell
from qbench.suite.match import Names, Place, cell_names, known_names, matches
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
    named = {place: cell_names(cell) for place, cell in cells.items()}
    reasons: dict[Place, str] = {}
    for index, exclusion in enumerate(suite.exclude):
        axes = _axes(exclusion.when)
        for axis, values in axes.items():
            if axis != "seeds" or not seeds_replaced:
                _check_known(suite, index, axis, values, named.values())
        wanted = {_CELL_AXES[axis]: values for axis, values in axes.items()}
        hits = [place for place, names in named.items() if matches(names, wanted)]
        if not hits and not (seeds_replaced and "seeds" in axes):
            asked = ", ".join(f"{axis}={'|'.join(values)}" for axis, values in axes.items())
            raise suite.error(("exclude", index, "when"), f"excludes nothing: no cell has all of {asked}")
        for place in hits:
            reasons.setdefault(place, exclusion.reason)
    return reasons


def _axes(when: When) -> dict[str, list[str]]:
    axes = {axis: [str(value) for value in getattr(when, axis)] for axis in _CELL_AXES}
    return {axis: values for axis, values in axes.items() if values}


def _check_known(suite: Suite, index: int, axis: str, values: list[str], named: Iterable[Names]) -> None:
    known = known_names(named, _CELL_AXES[axis]) - {FP}
    for position, value in enumerate(values):
        if value not in known:
            path = ("exclude", index, "when", axis, position)
            raise suite.error(path, f"{value!r} excludes nothing{nearest(value, known)}")

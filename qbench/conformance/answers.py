"""Properties of what a quantizer answers: the parameters themselves, before any weight is rounded."""

from __future__ import annotations

from collections.abc import Callable

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, Property, UnableError
from qbench.conformance.surroundings import settings_kept

# What can be said of a quantizer that gave no grid.
_WITHOUT_GRID = ("raises", "state")


def _no_fault(kind: str) -> Callable[[Case], None]:
    def test(case: Case) -> None:
        seen = case.fault(kind)
        if seen is not None:
            raise BrokenError(seen)
        if kind not in _WITHOUT_GRID and not case.has_grid:
            _ = case.grid  # says why

    return test


def codebooks_rise(case: Case) -> None:
    """Make sure that the levels of a codebook are finite and rise."""
    _no_fault("table")(case)
    if case.grid.table is None:
        raise UnableError("its levels are no codebook")


def state_is_left(case: Case) -> None:
    """Make sure that settings of the process stay, such as the gradient mode, or are put back."""
    _no_fault("state")(case)
    with settings_kept() as changed:
        case.quantizer.refuses(case.bits)
    if changed:
        raise BrokenError(f"refuses({case.bits}) changed the {changed[0]} of the process (allowed: to put it back)")


def scales_are_of_their_format(case: Case) -> None:
    """Make sure that a scale that was rounded to what it is stored in stays when it is rounded again."""
    grid = case.grid
    again = grid.scale_format.round(grid.scale)
    moved = again != grid.scale
    if moved.any():
        one, two = float(grid.scale[moved][0]), float(again[moved][0])
        raise BrokenError(f"a scale of {one:g} becomes {two:g} when it is rounded to {grid.scale_format.name} again")


ANSWERS = (
    Property("raises nothing", _no_fault("raises")),
    Property("levels rise and fit into the bits", _no_fault("levels")),
    Property("returns parameters", _no_fault("type")),
    Property("parameters have a row a block", _no_fault("shape")),
    Property("scales are positive and finite", _no_fault("scales")),
    Property("scales are numbers of their format", scales_are_of_their_format),
    Property("levels of a codebook rise", codebooks_rise),
    Property("zero points are among the levels'", _no_fault("zero points")),
    Property("its input stays as it was", _no_fault("mutates")),
    Property("leaves torch's global state as it was", state_is_left),
)

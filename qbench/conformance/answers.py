"""Properties of what a quantizer answers: the parameters themselves, before any weight is rounded."""

from __future__ import annotations

from collections.abc import Callable

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, MissingError, Property, UnableError


def _no_fault(kind: str) -> Callable[[Case], None]:
    def test(case: Case) -> None:
        seen = case.fault(kind)
        if seen is not None:
            raise BrokenError(seen)
        if kind != "raises" and not case.has_grid:
            raise MissingError("needs parameters, and there are none")

    return test


def codebooks_rise(case: Case) -> None:
    """Make sure that the levels of a codebook are finite and rise."""
    _no_fault("table")(case)
    if case.grid.table is None:
        raise UnableError("its levels are no codebook")


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
    Property("returns parameters", _no_fault("type")),
    Property("parameters have a row a block", _no_fault("shape")),
    Property("scales are positive and finite", _no_fault("scales")),
    Property("scales are numbers of their format", scales_are_of_their_format),
    Property("levels of a codebook rise", codebooks_rise),
    Property("zero points are among the levels'", _no_fault("zero points")),
    Property("its input stays as it was", _no_fault("mutates")),
)

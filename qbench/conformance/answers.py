"""Properties of what a quantizer answers: the parameters themselves, before any weight is rounded."""

from __future__ import annotations

from collections.abc import Callable

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, MissingError, Property


def _no_fault(kind: str) -> Callable[[Case], None]:
    def test(case: Case) -> None:
        seen = case.fault(kind)
        if seen is not None:
            raise BrokenError(seen)
        if kind != "raises" and not case.has_grid:
            raise MissingError("needs parameters, and there are none")

    return test


ANSWERS = (
    Property("raises nothing", _no_fault("raises")),
    Property("returns parameters", _no_fault("type")),
    Property("parameters have a row a block", _no_fault("shape")),
    Property("scales are positive and finite", _no_fault("scales")),
    Property("zero points are among the levels'", _no_fault("zero points")),
    Property("its input stays as it was", _no_fault("mutates")),
)

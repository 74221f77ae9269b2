"""The points of a probe: labels of the methods whose weights it looked at."""

from __future__ import annotations

from qbench.claims.subject import LackingError
from qbench.store.record import Record


def points_of(probe: Record) -> list[str]:
    """Return the labels, sorted."""
    return sorted(name.removesuffix("/excess") for name in probe.metrics if name.endswith("/excess"))


def point_of(probe: Record, name: str) -> str:
    """Return the label of a method's point with the fewest options off their defaults.

    Raises
    ------
    LackingError
        The probe has no point of that method.
    """
    fitting = [label for label in points_of(probe) if label.partition("[")[0] == name]
    if not fitting:
        raise LackingError(f"point {name} in {probe.label}")
    return min(fitting, key=lambda label: (len(label), label))

"""The command that runs one cell again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from qbench.report.page.place import Place

_AXES = ("model", "quantizer", "bits", "method", "seed")


def expression(place: Place) -> str:
    """Return what ``--only`` takes for a cell: ``model=llama-1m,quantizer=mse,bits=2,method=gptq,seed=0``."""
    return ",".join(f"{axis}={place.axes[axis]}" for axis in _AXES if place.axes[axis] is not None)


def command(place: Place) -> str:
    """Return the command for a shell, quoted where it has to be."""
    only = shlex.quote(expression(place))
    return f"qbench run --suite {shlex.quote(place.run.name)} --only {only} --fresh"


def others(place: Place, places: Iterable[Place]) -> list[Place]:
    """Return the cells that the command runs too, since a label without options is the name of those with options.

    Full precision and controls, which come with every cell, are not among them.

    Parameters
    ----------
    place : Place
        The cell that is asked for.
    places : iterable of Place
        All cells of its run.
    """
    wanted = {axis: str(place.axes[axis]) for axis in _AXES if place.axes[axis] is not None}
    return [
        other
        for other in places
        if other.label != place.label and all(value in _names(other, axis) for axis, value in wanted.items())
    ]


def _names(place: Place, axis: str) -> set[str]:
    value = place.axes[axis]
    return set() if value is None else {str(value), str(value).partition("[")[0]}

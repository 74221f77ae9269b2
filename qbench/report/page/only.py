"""The command that runs one cell again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from qbench.report.page.place import AXES, Place


def expression(place: Place) -> str:
    """Return what ``--only`` takes for a cell: ``model=llama-1m,quantizer=mse,bits=2,method=gptq,seed=0``."""
    return ",".join(f"{axis}={place.axes[axis]}" for axis in AXES if place.axes[axis] is not None)


def command(place: Place) -> str:
    """Return the command for a shell, quoted where it has to be."""
    # Records that were read without their suite say which one ran them.
    suite = place.run.name if place.run.places or place.record is None else place.record.suite
    return f"qbench run --suite {shlex.quote(suite)} --only {shlex.quote(expression(place))} --fresh"


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
    wanted = [(axis, str(value)) for axis in AXES if (value := place.axes[axis]) is not None]
    return [
        other
        for other in places
        if other is not place and all(_answers(other.axes[axis], value) for axis, value in wanted)
    ]


def _answers(value: str | int | None, name: str) -> bool:
    """Return whether a cell with this value on an axis answers to a name."""
    return value is not None and (str(value) == name or str(value).partition("[")[0] == name)

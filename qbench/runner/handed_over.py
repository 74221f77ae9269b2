"""What a method is handed of a task: its functions, by a way that leads to no evaluation data.

A bound method of a task would bring the task, and with it what the task evaluates on. So a method gets callables that
hold a number, and the tasks that the numbers stand for are in a table of this module.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from qbench.tasks.evaluation_fence import lowered

if TYPE_CHECKING:
    from qbench.methods.latent import LatentWeight
    from qbench.methods.watch import Watch

_kept: dict[int, Any] = {}
_numbers = count()


class Place:
    """A place in the table, for as long as someone holds it.

    Parameters
    ----------
    kept : object
        What it stands for: a task, or a watch.
    """

    __slots__ = ("__weakref__", "number")

    def __init__(self, kept: Any) -> None:
        self.number = next(_numbers)
        _kept[self.number] = kept
        weakref.finalize(self, _kept.pop, self.number)


class Handed:
    """A function of a task; calling it calls the task's.

    Parameters
    ----------
    place : Place
        Of the task.
    name : str
        The function's.
    """

    __slots__ = ("_name", "_place")

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name

    def __call__(self, *given: Any) -> Any:
        """Call the task's function."""
        return getattr(_kept[self._place.number], self._name)(*given)


def functions(task: Any, *names: str) -> dict[str, Callable[..., Any] | None]:
    """Return functions of a task by their names; None for one that the task does not have."""
    place = Place(task)
    return {name: Handed(place, name) if getattr(task, name, None) is not None else None for name in names}


class HandedWatch:
    """A watch that a method can show its weights to, and that keeps what it has seen.

    What it looks with is evaluation data: while it looks, the fence around these is down.

    Parameters
    ----------
    watch : Watch
        Who looks.
    """

    __slots__ = ("_place",)

    def __init__(self, watch: Watch) -> None:
        self._place = Place(watch)

    def wants(self, step: int) -> bool:
        """Return whether the weights after so many updates are to be seen."""
        wanted: bool = _kept[self._place.number].wants(step)
        return wanted

    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        """Show the weights after `step` updates."""
        with lowered():
            _kept[self._place.number].see(step, weights)

    def state(self) -> dict[str, Any]:
        """Return what the watch has seen so far."""
        found: dict[str, Any] = _kept[self._place.number].state()
        return found

    def restore(self, state: dict[str, Any]) -> None:
        """Give the watch back what it had seen in an earlier process."""
        _kept[self._place.number].restore(state)

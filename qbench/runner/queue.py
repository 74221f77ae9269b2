"""What a run may begin with next: full-precision cells gate their rows, and probes the weights they read."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

from qbench.runner.identity import PlannedCell
from qbench.store.record import Record
from qbench.store.summary import Summary

Group = tuple[object, int]
"""A model and a seed: what a process keeps loaded from one cell to the next."""

Ended = Record | Summary


class Queue(Iterator[PlannedCell | None]):
    """The cells of a plan, in its order, each as soon as all that it waits for has ended.

    Iterating gives None where what comes next waits for a cell that has not ended, and ends when all are given. A cell
    behind one that is not clean is not given: `shut` is told of it.

    Parameters
    ----------
    todo : sequence of PlannedCell
        What is to be executed, in the order in which it should begin.
    ended : mapping of str to Record or Summary
        What has ended, by cell id; the caller adds to it, and calls `open` after each.
    shut : callable
        Called with a cell that is not to be executed, and with what it waited for; it has to end that cell.
    """

    def __init__(
        self,
        todo: Sequence[PlannedCell],
        ended: Mapping[str, Ended],
        shut: Callable[[PlannedCell, Ended], None],
    ) -> None:
        self._todo, self._ended, self._shut = todo, ended, shut
        self._left, self._taken = len(todo), bytearray(len(todo))
        self._wanted: Group | None = None
        self._coming = {one.cell_id for one in todo}
        self._rows = {group_of(one): one.cell_id for one in todo if one.cell.is_fp}
        self._behind: dict[str, list[int]] = {}
        self._missing = [0] * len(todo)
        self._open: list[int] = []
        self._open_of: dict[Group, list[int]] = {}
        for index, one in enumerate(todo):
            out = [gate for gate in self._gates(one) if gate not in ended]
            self._missing[index] = len(out)
            for gate in out:
                self._behind.setdefault(gate, []).append(index)
            if not out:
                self._push(index)

    def __iter__(self) -> Queue:
        return self

    def __next__(self) -> PlannedCell | None:
        while self._left:
            index = self._pop()
            if index is None:
                return None
            self._taken[index], self._left = 1, self._left - 1
            one = self._todo[index]
            gate = next((self._ended[gate] for gate in self._gates(one) if not self._ended[gate].clean), None)
            if gate is None:
                return one
            self._shut(one, gate)
        raise StopIteration

    def prefer(self, group: Group | None) -> None:
        """Have the next cell be one of a group, where one is open: somebody has its model loaded."""
        self._wanted = group

    def open(self, cell_id: str) -> None:
        """Take in that a cell has ended; what waited for it alone can be begun."""
        for index in self._behind.pop(cell_id, ()):
            self._missing[index] -= 1
            if not self._missing[index]:
                self._push(index)

    def _gates(self, one: PlannedCell) -> list[str]:
        row = self._rows.get(group_of(one))
        first = [] if row is None or one.cell.is_fp else [row]
        return first + [point for point in one.points.values() if point in self._coming or point in self._ended]

    def _push(self, index: int) -> None:
        heapq.heappush(self._open, index)
        heapq.heappush(self._open_of.setdefault(group_of(self._todo[index]), []), index)

    def _pop(self) -> int | None:
        wanted, self._wanted = self._wanted, None
        # A cell stands in the heap of its group and in that of all; in the other it is passed over later.
        for heap in ([] if wanted is None else [self._open_of.get(wanted, [])]) + [self._open]:
            while heap:
                index = heapq.heappop(heap)
                if not self._taken[index]:
                    return index
        return None


def group_of(planned: PlannedCell) -> Group:
    """Return the model and the seed of a cell."""
    return planned.cell.model, planned.cell.seed

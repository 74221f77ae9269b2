"""The worker processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing import connection

from qbench.runner.identity import PlannedCell
from qbench.runner.process import Ending, WorkerProcess

# The system is asked this often whether a process lives: a pipe tells of no end while a child of it holds it open.
_LOOK_SECONDS = 1.0


class Crew:
    """Processes that are started when there is a cell for them, and kept for the next one.

    Parameters
    ----------
    hire : callable
        Starts a process.
    seconds : float or None
        The time that each cell has.
    begun : callable
        Called with each cell as soon as a process has begun with it.
    """

    def __init__(
        self, hire: Callable[[], WorkerProcess], seconds: float | None, begun: Callable[[PlannedCell], None]
    ) -> None:
        self._hire, self._seconds, self._begun = hire, seconds, begun
        self._members: list[WorkerProcess] = []

    @property
    def cells(self) -> list[PlannedCell]:
        """Return the cells that are being worked on."""
        return [one.planned for one in self._members if one.planned is not None]

    def give(self, planned: PlannedCell, task: tuple[object, ...]) -> None:
        """Have a process execute a cell; see `WorkerProcess.give`."""
        for one in [one for one in self._members if one.planned is None and not one.alive]:
            self._dismiss(one)
        idle = [one for one in self._members if one.planned is None]
        if not idle:
            idle = [self._hire()]
            self._members += idle
        idle[0].give(planned, task, self._seconds)

    def listen(self) -> Iterator[tuple[PlannedCell, Ending, str]]:
        """Wait, and yield what has ended meanwhile; a process that died or took too long is gone, others go on."""
        busy = [(one, one.planned) for one in self._members if one.planned is not None]
        times = [one.seconds_left for one, _ in busy]
        patience = min([_LOOK_SECONDS, *(left for left in times if left is not None)])
        connection.wait([ear for one, _ in busy for ear in one.ears()], patience)
        for one, planned in busy:
            known = one.begun
            found = one.look()
            if one.begun and not known:
                self._begun(planned)
            if found is not None:
                one.planned = None
                if found[0] in ("died", "late"):
                    self._dismiss(one)
                yield planned, *found

    def part(self) -> None:
        """Let all processes end in their own way; none has a cell any more."""
        while self._members:
            self._members[-1].end()
            self._members.pop()

    def kill(self) -> None:
        """End all processes at once, whatever they do."""
        while self._members:
            self._dismiss(self._members[-1])

    def _dismiss(self, member: WorkerProcess) -> None:
        member.kill()
        self._members.remove(member)

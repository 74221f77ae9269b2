"""The local executor: processes that share out the machine's cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from qbench.errors import QBenchError, UnwritableError
from qbench.runner import worker
from qbench.runner.crew import Crew
from qbench.runner.identity import PlannedCell
from qbench.runner.process import Ending, WorkerProcess, worker_environment
from qbench.store.record import Record, Status
from qbench.store.schema import parse_record

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class LocalExecutor:
    """Processes on this machine.

    Attributes
    ----------
    jobs : int
        Processes; each runs one cell at a time.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    offline : bool
        Keep the libraries from asking a hub.
    timeout : float or None
        Seconds that a cell may take, loading its model and writing its weights included.
    threads_each : int or None
        Threads of each process, where they are not to be the cores shared out evenly.
    environment : mapping of str to str
        What the processes' environment gets besides.
    checkpoint_path : callable or None
        Where the checkpoint of a cell id goes; None where trainings leave none.
    checkpoint_seconds : float
        How much time goes by from one checkpoint to the next; 0 is never.
    """

    jobs: int
    device: str = "auto"
    offline: bool = True
    timeout: float | None = None
    threads_each: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    checkpoint_path: Callable[[str], Path] | None = None
    checkpoint_seconds: float = 0.0

    @property
    def threads(self) -> int:
        """Threads of each process."""
        return self.threads_each or max(1, cores() // self.jobs)

    def run(
        self,
        cells: Iterable[PlannedCell | None],
        suite: str,
        weights_path: Callable[[str], Path],
        begun: Callable[[PlannedCell], None] = lambda _: None,
    ) -> Generator[Record]:
        """Execute cells and yield each record as soon as it is there, in the order in which cells end.

        A process that dies, or that takes longer than it may, costs no other cell anything. A cell whose process died
        (where memory ran out, say) is tried once more while nothing else runs, and a training goes on from its last
        checkpoint; where its process dies again, its record says so. A cell that takes too long is not tried again.

        Parameters
        ----------
        cells : iterable of PlannedCell or None
            Started in this order; asked for the next one when a process is free. None says that the next one waits
            for a record that is not there yet.
        suite : str
            For the records.
        weights_path : callable
            Where the packed weights of a cell id go.
        begun : callable, optional
            Called with each cell when a process begins with it; of one that is tried again, again.

        Raises
        ------
        UnwritableError
            The disk is full, say: no cell can be kept.
        """
        queue, died, again = iter(cells), deque[PlannedCell](), set[str]()
        environment = worker_environment(self.offline, self.environment)
        crew = Crew(lambda: WorkerProcess(self.device, self.threads, environment), self.timeout, begun)

        def take() -> PlannedCell | None:
            """Return the next cell to start, or None while there is none or no process for it."""
            # No more cells are handed out than there are processes, so that few are lost with the run.
            if len(crew.cells) >= self.jobs or any(one.cell_id in again for one in crew.cells):
                return None
            planned = next(queue, None)
            if planned is None and died and not crew.cells:
                planned = died.popleft()
                again.add(planned.cell_id)
            return planned

        try:
            while True:
                while (planned := take()) is not None:
                    path = weights_path(planned.cell_id)
                    points = {label: weights_path(cell_id) for label, cell_id in planned.points.items()}
                    try:
                        packed, plugins = worker.pack(planned)
                    except Exception as error:  # a class that a plugin makes inside a function, say
                        yield told(planned, suite, "failed", worker.in_words(error))
                        continue
                    crew.give(planned, (packed, plugins, suite, path, points, self._checkpoint(planned)))
                if not crew.cells:
                    break
                for planned, ending, said in crew.listen():
                    if ending == "died" and planned.cell_id not in again:
                        died.append(planned)
                    else:
                        yield record_of(planned, suite, ending, said, self.timeout)
            crew.part()
        finally:
            crew.kill()  # an interrupted run must not wait for the cells in flight

    def _checkpoint(self, planned: PlannedCell) -> tuple[Path, float] | None:
        if self.checkpoint_path is None:
            return None
        return self.checkpoint_path(planned.cell_id), self.checkpoint_seconds


def check_device(wanted: str) -> None:
    """Make sure that a device has one of the allowed names, without asking torch whether it is there.

    Raises
    ------
    QBenchError
        It is none of ``auto``, ``cpu`` and ``cuda``.
    """
    if wanted not in DEVICES:
        raise QBenchError(f"--device {wanted!r} is not a device (allowed: {', '.join(DEVICES)})")


def cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def record_of(planned: PlannedCell, suite: str, ending: Ending, said: str, timeout: float | None) -> Record:
    """Return the record of a cell that has ended for good.

    Parameters
    ----------
    planned : PlannedCell
        The cell.
    suite : str
        For the record.
    ending, said : str
        How it ended and what was said of it; see `worker.serve`.
    timeout : float or None
        The seconds that it had.

    Raises
    ------
    UnwritableError, QBenchError
        It is no fault of the cell, and others would end in the same way.
    """
    if ending == "unwritable":
        raise UnwritableError(said)
    if ending == "unable":
        raise QBenchError(said)
    if ending == "record":
        return parse_record(said)
    if ending == "late":
        return told(planned, suite, "timeout", f"not done after {timeout:g} s (--timeout)")
    if ending == "died":
        said = "its process died twice without a word: killed, as the system does where memory runs out, or crashed"
    return told(planned, suite, "failed", said)


def told(planned: PlannedCell, suite: str, status: Status, reason: str) -> Record:
    """Return the record of a cell that ends now, without a word of its own.

    Parameters
    ----------
    planned : PlannedCell
        The cell.
    suite : str
        For the record.
    status, reason : str
        What became of it, and why.
    """
    return planned.not_executed(suite, status, reason, datetime.now(UTC).isoformat(timespec="milliseconds"))

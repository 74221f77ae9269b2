"""The local executor: a pool of processes that share out the machine's cores."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from qbench.errors import QBenchError
from qbench.runner import worker
from qbench.runner.identity import PlannedCell
from qbench.store.record import Record

DEVICES = ("auto", "cpu", "cuda")
# Without these, glibc gives every large temporary back to the system at once and pays for fresh pages at the next one.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


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
    """

    jobs: int
    device: str = "auto"
    offline: bool = True

    @property
    def threads(self) -> int:
        """Threads of each process: the cores shared out evenly."""
        return max(1, cores() // self.jobs)

    def run(
        self,
        cells: Iterable[PlannedCell | None],
        suite: str,
        weights_path: Callable[[str], Path],
    ) -> Iterator[Record]:
        """Execute cells and yield each record as soon as it is there, in the order in which cells end.

        A process that dies (out of memory, say) fails no other cell: those in flight are tried once more, one by one,
        and the one that ends its process again gets a record that says so.

        Parameters
        ----------
        cells : iterable of PlannedCell or None
            Started in this order; asked for the next one when a process is free. None says that the next one waits
            for a record that is not there yet.
        suite : str
            For the records.
        weights_path : callable
            Where the packed weights of a cell id go.
        """
        queue = iter(cells)
        while True:
            flight: list[PlannedCell] = []
            try:
                yield from self._pooled(queue, self.jobs, suite, weights_path, flight)
                return
            except BrokenProcessPool:
                suspects = list(flight)
            for planned in suspects:
                try:
                    yield from self._pooled(iter([planned]), 1, suite, weights_path, [])
                except BrokenProcessPool:
                    yield _died(planned, suite)

    def _pooled(
        self,
        queue: Iterator[PlannedCell | None],
        jobs: int,
        suite: str,
        weights_path: Callable[[str], Path],
        flight: list[PlannedCell],
    ) -> Iterator[Record]:
        """Run cells in a fresh pool; `flight` always holds those that a process may be working on."""
        first = next(queue, None)
        if first is None:
            return  # no cell, no process
        pending: dict[Future[Record], PlannedCell] = {}
        with _environment(self.offline):
            pool = ProcessPoolExecutor(
                jobs, get_context("spawn"), initializer=worker.start, initargs=(self.device, self.threads)
            )
            try:
                waiting: Iterator[PlannedCell | None] = chain([first], queue)
                while True:
                    # No more cells are handed out than there are processes, so that few are lost with a process.
                    while len(pending) < jobs and (planned := next(waiting, None)) is not None:
                        try:
                            packed, plugins = worker.pack(planned)
                        except Exception as error:  # a class that a plugin makes inside a function, say
                            yield _failed(planned, suite, error)
                            continue
                        flight.append(planned)  # before submitting, which fails where a process has died meanwhile
                        path = weights_path(planned.cell_id)
                        points = {label: weights_path(cell_id) for label, cell_id in planned.points.items()}
                        with _without_interrupts():
                            pending[pool.submit(worker.work, packed, plugins, suite, path, points)] = planned
                    if not pending:
                        return
                    ended, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in ended:
                        try:
                            record = future.result()
                        except BrokenProcessPool:
                            raise
                        except Exception as error:  # its plugin, or its record cannot be handed over
                            record = _failed(pending[future], suite, error)
                        del pending[future]
                        flight[:] = pending.values()
                        yield record
            except BaseException:
                # An interrupted run must not wait for the cells in flight.
                for process in list((pool._processes or {}).values()):
                    process.terminate()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


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


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold back SIGINT for the processes started meanwhile, until `worker.start` ignores it.

    A terminal's Ctrl-C reaches a process that is still importing, too, which would print where it was.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(offline: bool) -> Iterator[None]:
    """Set what must be in the environment before a worker starts."""
    # cuBLAS gives the same bits twice only with a workspace of its own.
    wanted = (
        ALLOCATOR
        | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        | ({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} if offline else {})
    )
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update({key: os.environ.get(key, value) for key, value in wanted.items()})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _failed(planned: PlannedCell, suite: str, error: Exception) -> Record:
    text = str(error) if isinstance(error, QBenchError) else f"{type(error).__name__}: {error}"
    return planned.not_executed(suite, "failed", text.split("\n")[0], _now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _died(planned: PlannedCell, suite: str) -> Record:
    reason = "its process died twice without a word: killed, as the system does where memory runs out, or crashed"
    return planned.not_executed(suite, "failed", reason, _now())

"""One worker process, seen from the run: given a cell, listened to, ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from typing import Any, Literal

import psutil

from qbench.runner import worker
from qbench.runner.identity import PlannedCell

Ending = Literal["record", "failed", "unwritable", "unable", "died", "late"]

# Without these, glibc gives every large temporary back to the system at once and pays for fresh pages at the next one.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
_PARTING_SECONDS = 10.0


class WorkerProcess:
    """A process that executes one cell at a time.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int
        Threads of torch's operators.
    environment : mapping of str to str
        What must be in its environment before it starts; see `worker_environment`.

    Attributes
    ----------
    planned : PlannedCell or None
        The cell it works on.
    begun : bool
        Whether it has said that it began with that.
    """

    def __init__(self, device: str, threads: int, environment: Mapping[str, str]) -> None:
        context = get_context("spawn")
        self.planned: PlannedCell | None = None
        self.begun = False
        self._seconds: float | None = None
        self._deadline: float | None = None
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=worker.serve, args=(theirs, device, threads), name="qbench worker")
        with _environment(environment), _without_interrupts():
            self._process.start()
        theirs.close()  # so that the end of the process is the end of what comes from it

    @property
    def alive(self) -> bool:
        """Whether the system still has it."""
        return self._process.is_alive()

    def give(self, planned: PlannedCell, task: tuple[object, ...], seconds: float | None) -> None:
        """Have it execute a cell.

        Parameters
        ----------
        planned : PlannedCell
            The cell.
        task : tuple
            The arguments of `worker.work`.
        seconds : float or None
            The time that it has, from when the process begins with it.
        """
        self.planned, self.begun, self._seconds, self._deadline = planned, False, seconds, None
        try:
            self._ours.send(task)
        except OSError:
            pass  # it has died since the last cell, which the next look finds

    def look(self) -> tuple[Ending, str] | None:
        """Return what became of the cell and what was said of it; None while the process works on it."""
        alive = self.alive  # asked first: what it said before it died counts
        while True:
            try:
                word = self._ours.recv() if self._ours.poll() else None
            except (EOFError, OSError):
                return "died", ""
            if word is None:
                break
            if word[0] != "begun":
                ending: Ending = word[0]
                return ending, word[1]
            self.begun = True
            self._deadline = None if self._seconds is None else time.monotonic() + self._seconds
        if not alive:
            return "died", ""
        return ("late", "") if self._deadline is not None and time.monotonic() >= self._deadline else None

    def end(self) -> None:
        """Ask it to end, and kill it where it does not."""
        try:
            self._ours.send(None)
        except OSError:
            pass
        self._process.join(_PARTING_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, with all processes that it has started."""
        family: list[psutil.Process] = []
        if self.alive:  # otherwise its number may be that of another process by now
            try:
                family = psutil.Process(self._process.pid).children(recursive=True)
            except psutil.Error:
                pass
        self._process.kill()
        for one in family:
            try:
                one.kill()
            except psutil.Error:
                pass
        self._process.join()
        self._process.close()
        self._ours.close()

    def ears(self) -> list[Any]:
        """Return what `multiprocessing.connection.wait` can wait on: what it says, and its end."""
        return [self._ours, self._process.sentinel]

    @property
    def seconds_left(self) -> float | None:
        """The time it has for its cell, or None where it has begun with none or has all the time there is."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


def worker_environment(offline: bool, own: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment of a worker gets.

    Parameters
    ----------
    offline : bool
        Keep the libraries from asking a hub.
    own : mapping of str to str
        What stands whatever the environment of this process says; all else gives way to it.
    """
    # cuBLAS gives the same bits twice only with a workspace of its own.
    wanted = ALLOCATOR | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if offline:
        wanted |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {key: os.environ.get(key, value) for key, value in wanted.items()} | dict(own)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold back SIGINT for the processes started meanwhile, until `worker.start` ignores it.

    A terminal's Ctrl-C reaches a process that is still importing, too, which would print where it was.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # with the first process, otherwise, and it lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

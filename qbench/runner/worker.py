"""What runs in a worker process."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.runner.identity import PlannedCell
from qbench.store.record import Record

if TYPE_CHECKING:
    from qbench.runner.execute import Session

_session: Session | None = None


def start(device: str, threads: int) -> None:
    """Prepare this process; called once, before the first cell.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int
        Threads of torch's operators.
    """
    global _session  # noqa: PLW0603 - one a process, by design
    # A terminal's Ctrl-C reaches every process; the parent, which it means, ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what a method prints must not get into the leaderboard
    _end_with_parent()
    os.environ["TQDM_DISABLE"] = "1"  # libraries' own bars would run through ours
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from qbench.runner import machine
    from qbench.runner.execute import Session

    machine.settle(threads)
    _session = Session(machine.resolve_device(device))


def work(planned: PlannedCell, suite: str, weights_path: Path) -> Record:
    """Execute a cell in this process, which `start` has prepared."""
    from qbench.runner.execute import execute

    assert _session is not None
    return execute(planned, suite, _session, weights_path)


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed run must not leave workers behind."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()

"""What runs in a worker process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing import connection, parent_process
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import CellError
from qbench.runner.identity import PlannedCell
from qbench.store.record import Record
from qbench.suite.plugins import Plugin, loaded_for

if TYPE_CHECKING:
    from qbench.runner.session import Session

_session: Session | None = None
_threads = 1


def start(device: str, threads: int) -> None:
    """Prepare this process; called once, before the first cell.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int
        Threads of torch's operators.
    """
    global _session, _threads
    # A terminal's Ctrl-C reaches every process; the parent, which it means, ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back since this process was started
    os.dup2(2, 1)  # what a method prints must not get into the leaderboard
    _end_with_parent()
    os.environ["TQDM_DISABLE"] = "1"  # libraries' own bars would run through ours
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from qbench.runner import machine
    from qbench.runner.session import Session

    machine.settle(threads)
    _session, _threads = Session(machine.resolve_device(device)), threads


def work(
    packed: bytes, plugins: tuple[Plugin, ...], suite: str, weights_path: Path, points: Mapping[str, Path] | None = None
) -> Record:
    """Execute a cell in this process, which `start` has prepared.

    Parameters
    ----------
    packed : bytes
        The `PlannedCell`, as `pack` gives it.
    plugins : tuple of Plugin
        Local plugins whose classes it holds; they must be there before it is unpacked.
    suite : str
        For the record.
    weights_path : Path
        Where the packed weights go.
    points : mapping of str to Path, optional
        Where those are that a probe reads, by the label of the method.

    Raises
    ------
    QBenchError
        A plugin that could be loaded by the parent cannot be loaded here.
    """
    from qbench.runner import machine
    from qbench.runner.execute import execute

    assert _session is not None
    for plugin in plugins:
        plugin.load()
    machine.settle(_threads)  # before every cell: a plugin must not cost the next one its settings
    planned = ForkingPickler.loads(packed)
    try:
        return execute(planned, suite, _session, weights_path, points)
    except (Exception, SystemExit):
        raise
    except BaseException as error:  # a KeyboardInterrupt raised by a method would end the parent, which gets it
        raise CellError(f"{type(error).__name__}: {error}") from None


def pack(planned: PlannedCell) -> tuple[bytes, tuple[Plugin, ...]]:
    """Return the first two arguments of `work`.

    Cells are unpacked by `work` and not by the pool, where a failure would end the process and the run with it.
    """
    cells = (planned.cell, *planned.cell.points)
    specs = [spec for cell in cells for spec in (cell.model, cell.quantizer, cell.procedure) if spec is not None]
    modules = {cls.__module__ for spec in specs for cls in type(spec).__mro__}
    return bytes(ForkingPickler.dumps(planned)), loaded_for(modules)


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed run must not leave workers behind."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()

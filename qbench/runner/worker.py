"""What runs in a worker process."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing import connection, parent_process
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.errors import CellError, QBenchError, UnwritableError
from qbench.runner.identity import PlannedCell
from qbench.store.record import Record
from qbench.store.schema import dump_record
from qbench.suite.plugins import Plugin, loaded_for

if TYPE_CHECKING:
    from qbench.runner.session import Session

_session: Session | None = None
_threads = 1


def serve(orders: connection.Connection, device: str, threads: int) -> None:
    """Execute the cells that come in, one at a time, until None comes or nobody is there to send any.

    Parameters
    ----------
    orders : Connection
        Brings the arguments of `work`. Two words go back for each: ``begun``, and how it ended with what is to be said
        of it: ``record`` with the record's JSON, ``failed`` or ``unwritable`` with the reason. A process that cannot be
        prepared says ``unable``, and why.
    device, threads
        As in `start`.
    """
    try:
        start(device, threads)
    except QBenchError as error:
        orders.send(("unable", in_words(error)))
        return
    try:
        while (task := orders.recv()) is not None:
            orders.send(("begun", ""))
            orders.send(_answer(*task))
    except (EOFError, BrokenPipeError):
        pass  # nobody is there any more


def _answer(packed: bytes, plugins: tuple[Plugin, ...], *task: Any) -> tuple[str, str]:
    return answer(lambda: work(unpack(packed, plugins), *task))


def answer(execute: Callable[[], Record]) -> tuple[str, str]:
    """Execute a cell, and return how it ended with what is to be said of it; see `serve`."""
    try:
        return "record", dump_record(execute())
    except UnwritableError as error:
        return "unwritable", in_words(error)
    except (Exception, SystemExit) as error:  # its plugin, or facts that JSON cannot hold
        return "failed", in_words(error)


def in_words(error: BaseException) -> str:
    """Return what an error says, in one line; without the name of its class where it is meant for users."""
    said = str(error) if isinstance(error, QBenchError) else f"{type(error).__name__}: {error}"
    return said.partition("\n")[0]


def start(device: str, threads: int) -> None:
    """Prepare this process; called once, before the first cell.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int
        Threads of torch's operators.
    """
    # A terminal's Ctrl-C reaches every process; the parent, which it means, ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back since this process was started
    os.dup2(2, 1)  # what a method prints must not get into the leaderboard
    _end_with_parent()
    prepare(device, threads)


def prepare(device: str, threads: int) -> None:
    """Load what every cell needs, and open the session that cells of one model share; see `start`."""
    os.environ["TQDM_DISABLE"] = "1"  # libraries' own bars would run through ours
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from qbench.runner import machine

    importlib.import_module("qbench.runner.execute")  # seconds, which are no cell's
    machine.settle(threads)
    _open_session(machine.resolve_device(device), threads)


def work(
    planned: PlannedCell,
    suite: str,
    weights_path: Path,
    points: Mapping[str, Path] | None = None,
    checkpoint: tuple[Path, float] | None = None,
) -> Record:
    """Execute a cell in this process, which `prepare` has prepared.

    Parameters
    ----------
    planned : PlannedCell
        The cell, as `unpack` gives it.
    suite : str
        For the record.
    weights_path : Path
        Where the packed weights go.
    points : mapping of str to Path, optional
        Where those are that a probe reads, by the label of the method.
    checkpoint : tuple of (Path, float), optional
        Where a training leaves its checkpoint, and after how many seconds each time.

    Raises
    ------
    UnwritableError
        The weights cannot be written.
    """
    from qbench.runner import machine
    from qbench.runner.checkpoints import CheckpointFile
    from qbench.runner.execute import execute

    assert _session is not None
    machine.settle(_threads)  # before every cell: a plugin must not cost the next one its settings
    try:
        checkpoints = None if checkpoint is None else CheckpointFile(*checkpoint)
        record = execute(planned, suite, _session, weights_path, points, checkpoints)
        if (record.reason or "").startswith(machine.OUT_OF_MEMORY):
            # The next cell must not pay for what this one and those before it have left in memory.
            _open_session(_session.device, _threads)
            machine.release_memory(_session.device)
        return record
    except (Exception, SystemExit):
        raise
    except BaseException as error:  # a KeyboardInterrupt raised by a method would end the parent, which gets it
        raise CellError(f"{type(error).__name__}: {error}") from None


def _open_session(device: str, threads: int) -> None:
    global _session, _threads
    from qbench.runner.session import Session

    _session, _threads = Session(device), threads


def pack(planned: PlannedCell) -> tuple[bytes, tuple[Plugin, ...]]:
    """Return a cell as bytes, and the local plugins whose classes it holds.

    It is unpacked where it is executed, where a failure is the cell's, and not on its way, where it would end the
    process.
    """
    cells = (planned.cell, *planned.cell.points)
    specs = [spec for cell in cells for spec in (cell.model, cell.quantizer, cell.procedure) if spec is not None]
    modules = {cls.__module__ for spec in specs for cls in type(spec).__mro__}
    return bytes(ForkingPickler.dumps(planned)), loaded_for(modules)


def unpack(packed: bytes, plugins: tuple[Plugin, ...]) -> PlannedCell:
    """Return the cell that `pack` made bytes of.

    Raises
    ------
    QBenchError
        A plugin that could be loaded by the parent cannot be loaded here.
    """
    for plugin in plugins:
        plugin.load()
    found: PlannedCell = ForkingPickler.loads(packed)
    return found


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed run must not leave workers behind."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()

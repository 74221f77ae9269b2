"""Run a suite: execute what its plan says, keep every record."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from qbench.runner.identity import PlannedCell
from qbench.runner.planning import Plan
from qbench.runner.queue import Ended, Queue
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.store.summary import Summary


class Executor(Protocol):
    """What executes cells, here or elsewhere."""

    def run(
        self,
        cells: Iterable[PlannedCell | None],
        suite: str,
        weights_path: Callable[[str], Path],
        begun: Callable[[PlannedCell], None] = ...,
    ) -> Generator[Record]:
        """Execute cells; yield each record when it is there, its packed weights written.

        Parameters
        ----------
        cells, suite, weights_path, begun
            As for `LocalExecutor.run`.
        """
        ...


def run(
    todo: Plan,
    suite: str,
    folder: RunFolder,
    executor: Executor,
    done: Callable[[Record], None],
    begun: Callable[[PlannedCell], None] = lambda _: None,
) -> Mapping[str, Record]:
    """Execute a plan; every record is on disk before `done` hears of it.

    Parameters
    ----------
    todo : Plan
        From `plan`.
    suite : str
        The suite's name.
    folder : RunFolder
        Where records go; the caller holds its lock.
    executor : Executor
        What executes.
    done : callable
        Called with each new record.
    begun : callable, optional
        Called with each cell when a process begins with it.

    Returns
    -------
    mapping of str to Record
        All records of the plan, old and new, by cell id; each is read from the folder when it is asked for.

    Raises
    ------
    UnwritableError
        Weights or a record cannot be written; what has ended before is kept, and no cell is said to have failed.

    Notes
    -----
    Full-precision cells gate their rows: a cell waits for that of its model and seed, and where it fails the cell is
    not executed, and its record says so. A probe waits for the cells whose weights it reads, in the same way.
    """
    ended: dict[str, Ended] = dict(todo.stored)

    def keep(record: Record) -> None:
        folder.write(record)
        if record.status in ("ok", "diverged"):  # otherwise it can go on from there once the reason is mended
            folder.checkpoint_path(record.cell_id).unlink(missing_ok=True)
        ended[record.cell_id] = Summary.of(record)
        queue.open(record.cell_id)
        done(record)

    def shut(one: PlannedCell, gate: Ended) -> None:
        which = "full-precision cell" if gate.axes["quantizer"] is None else f"cell {gate.label}"
        said = gate.reason or "; ".join(dict.fromkeys(gate.fallbacks))
        reason = f"its {which} {gate.status if gate.reason else 'fell back'}: {said}"
        keep(one.not_executed(suite, "skipped", reason, gate.ended))

    for one in todo.todo if todo.fresh else []:
        folder.checkpoint_path(one.cell_id).unlink(missing_ok=True)
    queue = Queue(todo.todo, ended, shut)
    executed = executor.run(queue, suite, folder.weights_path, begun)
    try:
        for record in executed:
            keep(record)
    finally:
        executed.close()  # at once, also where a record could not be written: no process must outlive the run
    return folder.records(ended)

"""Run a suite: execute what its plan says, keep every record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from qbench.runner.identity import PlannedCell
from qbench.runner.local import LocalExecutor
from qbench.runner.planning import Plan
from qbench.store.folder import RunFolder
from qbench.store.record import Record


def run(
    todo: Plan,
    suite: str,
    folder: RunFolder,
    executor: LocalExecutor,
    done: Callable[[Record], None],
    begun: Callable[[PlannedCell], None] = lambda _: None,
) -> dict[str, Record]:
    """Execute a plan; every record is on disk before `done` hears of it.

    Parameters
    ----------
    todo : Plan
        From `plan`.
    suite : str
        The suite's name.
    folder : RunFolder
        Where records go; the caller holds its lock.
    executor : LocalExecutor
        What executes.
    done : callable
        Called with each new record.
    begun : callable, optional
        Called with each cell when a process begins with it.

    Returns
    -------
    dict of str to Record
        All records of the plan, old and new, by cell id.

    Raises
    ------
    UnwritableError
        Weights or a record cannot be written; what has ended before is kept, and no cell is said to have failed.

    Notes
    -----
    Full-precision cells gate their rows: a cell waits for that of its model and seed, and where it fails the cell is
    not executed, and its record says so. A probe waits for the cells whose weights it reads, in the same way.
    """
    records = dict(todo.stored)

    def keep(record: Record) -> None:
        folder.write(record)
        if record.status in ("ok", "diverged"):  # otherwise it can go on from there once the reason is mended
            folder.checkpoint_path(record.cell_id).unlink(missing_ok=True)
        records[record.cell_id] = record
        done(record)

    for one in todo.todo if todo.fresh else []:
        folder.checkpoint_path(one.cell_id).unlink(missing_ok=True)
    coming = {one.cell_id for one in todo.todo}
    fp = {(one.cell.model, one.cell.seed): one.cell_id for one in todo.todo if one.cell.is_fp}
    queue, held = deque(todo.todo), list[PlannedCell]()

    def gates(one: PlannedCell) -> list[str]:
        """Return the cells of this plan that must be there first."""
        row = fp.get((one.cell.model, one.cell.seed))
        first = [] if row is None or one.cell.is_fp else [row]
        return first + [point for point in one.points.values() if point in coming or point in records]

    def first_open() -> PlannedCell | None:
        """Take the first cell whose gates are all there; those before it are held, and asked first the next time."""
        for place, one in enumerate(held):
            if all(gate in records for gate in gates(one)):
                return held.pop(place)
        while queue:
            one = queue.popleft()
            if all(gate in records for gate in gates(one)):
                return one
            held.append(one)
        return None

    def ready() -> Iterator[PlannedCell | None]:
        while queue or held:
            one = first_open()
            if one is None:
                yield None
                continue
            shut = next((records[gate] for gate in gates(one) if not records[gate].clean), None)
            if shut is None:
                yield one
            else:
                which = "full-precision cell" if shut.axes["quantizer"] is None else f"cell {shut.label}"
                said = shut.reason or "; ".join(dict.fromkeys(shut.fallbacks))
                reason = f"its {which} {shut.status if shut.reason else 'fell back'}: {said}"
                keep(one.not_executed(suite, "skipped", reason, shut.ended))

    executed = executor.run(ready(), suite, folder.weights_path, begun)
    try:
        for record in executed:
            keep(record)
    finally:
        executed.close()  # at once, also where a record could not be written: no process must outlive the run
    return records

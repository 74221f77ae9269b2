"""Run a suite: subtract what the folder holds, execute the rest, keep every record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qbench import atomic
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.local import LocalExecutor
from qbench.spec import Spec
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes
    ----------
    todo : list of PlannedCell
        Cells to execute, full-precision cells first, then those of one model and grid together.
    stored : dict of str to Record
        Sound records that the folder already holds, by cell id.
    skipped : list of Cell
        Cells that the suite leaves out, each with its reason.
    corrupt : dict of Path to str
        Files that are no records; their cells are in `todo`.
    """

    todo: list[PlannedCell]
    stored: dict[str, Record]
    skipped: list[Cell]
    corrupt: dict[Path, str] = field(default_factory=dict)


def plan(cells: Sequence[Cell], folder: RunFolder, *, fresh: bool = False) -> Plan:
    """Resolve identities and subtract what is stored.

    Parameters
    ----------
    cells : sequence of Cell
        All cells of the run.
    folder : RunFolder
        Where records are. A cell whose record says it failed, or whose weights are not those it tells of, is to be
        done again.
    fresh : bool
        Do every cell again.

    Raises
    ------
    AssetError
        A model or a text is missing.
    """
    scan = folder.scan()
    planned = [identify(cell) for cell in cells if cell.skip is None]
    stored = {
        one.cell_id: scan.records[one.cell_id]
        for one in planned
        if not fresh and one.cell_id in scan.records and _complete(scan.records[one.cell_id], one, folder)
    }
    todo = [one for one in planned if one.cell_id not in stored]
    first = {(one.cell.model, one.cell.seed): index for index, one in reversed(list(enumerate(todo)))}
    # A worker keeps the last model it loaded and the last grid it laid.
    todo.sort(key=lambda one: (not one.cell.is_fp, first[one.cell.model, one.cell.seed]))
    return Plan(todo, stored, [cell for cell in cells if cell.skip is not None], scan.corrupt)


def _complete(record: Record, planned: PlannedCell, folder: RunFolder) -> bool:
    if record.status != "ok" or planned.cell.quantizer is None:
        return record.status == "ok"
    weights = folder.weights_path(planned.cell_id)
    return weights.exists() and atomic.sha256_file(weights) == record.weights_sha256


def run(
    todo: Plan, suite: str, folder: RunFolder, executor: LocalExecutor, done: Callable[[Record], None]
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

    Returns
    -------
    dict of str to Record
        All records of the plan, old and new, by cell id.

    Notes
    -----
    Full-precision cells gate their rows: a cell waits for that of its model and seed, and where it fails the cell is
    not executed, and its record says so.
    """
    records = dict(todo.stored)

    def keep(record: Record) -> None:
        folder.write(record)
        records[record.cell_id] = record
        done(record)

    gates = {(one.cell.model, one.cell.seed): one.cell_id for one in todo.todo if one.cell.is_fp}
    full = deque(one for one in todo.todo if one.cell.is_fp)
    rows: dict[tuple[Spec, int], deque[PlannedCell]] = {}
    for one in todo.todo:
        if not one.cell.is_fp:
            rows.setdefault((one.cell.model, one.cell.seed), deque()).append(one)

    def ready() -> Iterator[PlannedCell | None]:
        while full or rows:
            if full:
                yield full.popleft()
                continue
            row = next((row for row in rows if row not in gates or gates[row] in records), None)
            if row is None:
                yield None
                continue
            one = rows[row].popleft()
            if not rows[row]:
                del rows[row]
            if row in gates and not (gate := records[gates[row]]).clean:
                reason = f"its full-precision cell {gate.status}: {gate.reason}"
                keep(one.not_executed(suite, "skipped", reason, gate.ended))
            else:
                yield one

    for record in executor.run(ready(), suite, folder.weights_path):
        keep(record)
    return records

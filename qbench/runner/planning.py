"""What is to be done: subtract what the folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qbench import atomic
from qbench.runner.identity import PlannedCell, identify
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
    held : list of Record
        All records in the folder, those of other cells and of earlier versions too: they tell how long cells take.
    fresh : bool
        Whether trainings begin again that have left a checkpoint.
    """

    todo: list[PlannedCell]
    stored: dict[str, Record]
    skipped: list[Cell]
    corrupt: dict[Path, str] = field(default_factory=dict)
    held: list[Record] = field(default_factory=list)
    fresh: bool = False


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
        Do every cell again, and from its beginning.

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
    skipped = [cell for cell in cells if cell.skip is not None]
    return Plan(todo, stored, skipped, scan.corrupt, list(scan.records.values()), fresh)


def _complete(record: Record, planned: PlannedCell, folder: RunFolder) -> bool:
    if record.status != "ok" or planned.cell.quantizer is None or planned.cell.is_probe:
        return record.status == "ok"
    weights = folder.weights_path(planned.cell_id)
    return weights.exists() and atomic.sha256_file(weights) == record.weights_sha256

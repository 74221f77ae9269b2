"""What is to be done: subtract what the folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qbench.runner.identity import PlannedCell, identify_all
from qbench.spec import Spec
from qbench.store.folder import RunFolder
from qbench.store.summary import Summary
from qbench.suite.cell import Cell


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes
    ----------
    todo : list of PlannedCell
        Cells to execute, full-precision cells first, then those of one model and grid together.
    stored : dict of str to Summary
        Sound records that the folder already holds, in short, by cell id.
    skipped : list of Cell
        Cells that the suite leaves out, each with its reason.
    corrupt : dict of Path to str
        Files that are no records; their cells are in `todo`.
    held : list of Summary
        All records in the folder, those of other cells and of earlier versions too: they tell how long cells take.
    fresh : bool
        Whether trainings begin again that have left a checkpoint.
    """

    todo: list[PlannedCell]
    stored: dict[str, Summary]
    skipped: list[Cell]
    corrupt: dict[Path, str] = field(default_factory=dict)
    held: list[Summary] = field(default_factory=list)
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
    found = folder.summaries()
    stored: dict[str, Summary] = {}
    todo: list[PlannedCell] = []
    for one in identify_all(cell for cell in cells if cell.skip is None):
        summary = None if fresh else found.summaries.get(one.cell_id)
        if summary is not None and _complete(summary, one, folder):
            stored[one.cell_id] = summary
        else:
            todo.append(one)
    first: dict[tuple[Spec, int], int] = {}
    # A worker keeps the last model it loaded and the last grid it laid.
    ranks = [
        (not one.cell.is_fp, first.setdefault((one.cell.model, one.cell.seed), index)) for index, one in enumerate(todo)
    ]
    todo = [todo[index] for index in sorted(range(len(todo)), key=ranks.__getitem__)]
    skipped = [cell for cell in cells if cell.skip is not None]
    return Plan(todo, stored, skipped, found.corrupt, list(found.summaries.values()), fresh)


def _complete(summary: Summary, planned: PlannedCell, folder: RunFolder) -> bool:
    if summary.status != "ok" or planned.cell.quantizer is None or planned.cell.is_probe:
        return summary.status == "ok"
    return folder.has_weights(summary)

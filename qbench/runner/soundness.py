"""Which stored cells can be run again and judged, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from qbench.runner.identity import PlannedCell
from qbench.runner.why import explain_own
from qbench.store.candidates import weights_problem
from qbench.store.documents import adds_up, loss_of_documents
from qbench.store.floats import dumps
from qbench.store.folder import RunFolder
from qbench.store.record import Record


class Unsound(NamedTuple):
    """A stored cell that is not what a run has written.

    Attributes
    ----------
    label, cell_id : str
        The cell's.
    state : str
        ``corrupt``, ``without weights``, ``other weights``: see `qbench.runner.why.Finding`. ``contradicts itself``:
        its loss is not that of its documents. ``other cell``: its key or its axes are not those of the cell whose id
        it has. ``without points``, ``other points``: weights that a probe reads are
        gone, or are not those that their record tells of.
    reason : str
        More in words.
    """

    label: str
    cell_id: str
    state: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """Cells by what a folder holds of them, full precision first.

    Attributes
    ----------
    sound : list of PlannedCell
        Stored, and as they were written as far as can be seen without running them.
    records : dict of str to Record
        Theirs, by cell id.
    unsound : list of Unsound
        Stored, and not as they were written.
    ended_badly : dict of str to str
        Records of cells that failed, diverged or were not done in time, by label: there is no result to compare.
    absent : list of str
        Labels of cells without any record.
    strays : dict of Path to str
        Files that are no records and belong to none of the cells, and why.
    """

    sound: list[PlannedCell] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    unsound: list[Unsound] = field(default_factory=list)
    ended_badly: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    strays: dict[Path, str] = field(default_factory=dict)


def survey(cells: Sequence[PlannedCell], folder: RunFolder) -> Survey:
    """Look at what a folder holds of cells; the weights of each are read and hashed.

    Parameters
    ----------
    cells : sequence of PlannedCell
        As they are today.
    folder : RunFolder
        Where they are stored.

    Raises
    ------
    StoreError
        A record was written by a newer qbench.
    """
    scan = folder.scan()
    files = {folder.record_path(one.cell_id) for one in cells}
    found = Survey(strays={path: reason for path, reason in scan.corrupt.items() if path not in files})
    # Full precision first: without it no other cell of its row means anything.
    for one in sorted(cells, key=lambda one: not one.cell.is_fp):
        label, own = one.cell.label(), explain_own(one, folder, scan)
        if own is None:
            found.absent.append(label)
        elif own.state == "failed":
            found.ended_badly[label] = own.reason
        elif own.state != "hit":
            found.unsound.append(Unsound(label, one.cell_id, own.state, own.reason))
        else:
            record = scan.records[one.cell_id]
            problem = (
                _stranger(one, record, folder)
                or _contradiction(one, record, folder)
                or _points(one, folder, scan.records)
            )
            if problem is None:
                found.sound.append(one)
                found.records[one.cell_id] = record
            else:
                found.unsound.append(problem)
    return found


def _stranger(planned: PlannedCell, record: Record, folder: RunFolder) -> Unsound | None:
    """Return what is wrong where a record lies under a cell's id and says that it is another's."""
    path = folder.record_path(planned.cell_id)
    for name, told, own in (("key", record.key, planned.key), ("axes", record.axes, planned.cell.axes())):
        if dumps(told) != dumps(own):
            reason = f"{path} holds another cell's {name}" + (f", of {record.label}" if name == "axes" else "")
            return Unsound(planned.cell.label(), planned.cell_id, "other cell", reason)
    return None


def _contradiction(planned: PlannedCell, record: Record, folder: RunFolder) -> Unsound | None:
    if adds_up(record):
        return None
    path, mean = folder.record_path(record.cell_id), loss_of_documents(record)
    reason = f"{path} tells of the loss {record.loss!r}, its documents of {mean!r}"
    return Unsound(planned.cell.label(), planned.cell_id, "contradicts itself", reason)


def _points(planned: PlannedCell, folder: RunFolder, records: Mapping[str, Record]) -> Unsound | None:
    """Return what is wrong with the weights that a probe reads."""
    for method, cell_id in planned.points.items():
        path, record = folder.weights_path(cell_id), records.get(cell_id)
        if not path.exists():
            state, reason = "without points", f"{path}, which it reads for {method}, is not there"
        elif record is not None and weights_problem(record, folder) is not None:
            state, reason = "other points", f"{path}, which it reads for {method}, is not what its record tells of"
        else:
            continue
        return Unsound(planned.cell.label(), planned.cell_id, state, reason)
    return None

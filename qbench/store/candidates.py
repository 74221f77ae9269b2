"""The records of a run folder that count: sound files, whose weights are there and are those they tell of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qbench import atomic
from qbench.store.folder import RunFolder
from qbench.store.record import Record


@dataclass(frozen=True)
class Candidates:
    """What one folder has to give.

    Attributes
    ----------
    folder : RunFolder
        Where they are.
    records : dict of str to Record
        By cell id.
    aside : dict of Path to str
        Files that do not count, and why: no records, or records without their weights.
    """

    folder: RunFolder
    records: dict[str, Record] = field(default_factory=dict)
    aside: dict[Path, str] = field(default_factory=dict)


def has_weights(record: Record) -> bool:
    """Return whether a file of weights belongs to a record: to that of a quantized cell that was executed."""
    return record.status == "ok" and record.axes.get("quantizer") is not None and not record.is_probe


def candidates(path: Path) -> Candidates:
    """Return what counts in a folder; every file of weights is read and hashed.

    Raises
    ------
    StoreError
        A record was written by a newer qbench.
    """
    folder = RunFolder(path)
    scan = folder.scan()
    found = Candidates(folder, aside=dict(scan.corrupt))
    for cell_id, record in scan.records.items():
        reason = weights_problem(record, folder)
        if reason is None:
            found.records[cell_id] = record
        else:
            found.aside[folder.record_path(cell_id)] = reason
    return found


def weights_problem(record: Record, folder: RunFolder) -> str | None:
    """Return what is wrong with the weights of a record; None where they are as it says, or there are to be none."""
    if not has_weights(record):
        return None
    path = folder.weights_path(record.cell_id)
    try:
        return None if atomic.sha256_file(path) == record.weights_sha256 else "its weights are not those it tells of"
    except FileNotFoundError:
        return "its weights are not there"
    except OSError as error:
        return f"its weights cannot be read ({error.strerror})"

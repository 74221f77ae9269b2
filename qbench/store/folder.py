"""The folder of a run: one record and one weight file a cell."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from qbench.atomic import require_writable, sha256_file, write_text
from qbench.errors import StoreError
from qbench.store import index
from qbench.store.lock import hold
from qbench.store.record import Record
from qbench.store.schema import CorruptRecordError, dump_record, parse_record
from qbench.store.stored_records import StoredRecords
from qbench.store.summary import Summary

_SPARE_LINES = 100  # that an index may have too many before it is made anew


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes
    ----------
    records : dict of str to Record
        By cell id.
    corrupt : dict of Path to str
        Files that are no records, and why; their cells count as missing.
    """

    records: dict[str, Record] = field(default_factory=dict)
    corrupt: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """What a folder holds, in short.

    Attributes
    ----------
    summaries : dict of str to Summary
        By cell id, in the order of the ids.
    corrupt : dict of Path to str
        As in `Scan`.
    """

    summaries: dict[str, Summary] = field(default_factory=dict)
    corrupt: dict[Path, str] = field(default_factory=dict)


class RunFolder:
    """``records/<cell_id>.json`` and ``weights/<cell_id>.safetensors`` under one path.

    While a training is not done, its last checkpoint is ``checkpoints/<cell_id>.safetensors``.

    Reading needs no lock: a file is wholly written or not there.

    Parameters
    ----------
    path : Path
        The folder; made by the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = False
        self._indexed: dict[str, index.Entry] = {}

    @property
    def _index_path(self) -> Path:
        return self.path / index.NAME

    def record_path(self, cell_id: str) -> Path:
        """Return where the record of a cell is, or would be."""
        return self.path / "records" / f"{cell_id}.json"

    def weights_path(self, cell_id: str) -> Path:
        """Return where the quantized weights of a cell are, or would be."""
        return self.path / "weights" / f"{cell_id}.safetensors"

    def checkpoint_path(self, cell_id: str) -> Path:
        """Return where a training that is not done leaves its checkpoint, or would leave it."""
        return self.path / "checkpoints" / f"{cell_id}.safetensors"

    def checkpoints(self) -> list[str]:
        """Return the ids of the cells that have a checkpoint, in order."""
        return sorted(path.stem for path in (self.path / "checkpoints").glob("[!.]*.safetensors"))

    def read(self, cell_id: str) -> Record | None:
        """Return the record of a cell, or None when there is none.

        Raises
        ------
        StoreError
            The file is corrupt, or was written by a newer qbench; the message says how to mend it.
        """
        path = self.record_path(cell_id)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except CorruptRecordError as error:
            raise StoreError(_mend(path, str(error))) from error

    def read_all(self) -> dict[str, Record]:
        """Return all records by cell id, in the order of their ids.

        Raises
        ------
        StoreError
            A file is corrupt, or was written by a newer qbench; the message says how to mend it.
        """
        scan = self.scan()
        if scan.corrupt:
            path, reason = next(iter(scan.corrupt.items()))
            others = f" (and {len(scan.corrupt) - 1} more such files)" if len(scan.corrupt) > 1 else ""
            raise StoreError(_mend(path, reason) + others)
        return scan.records

    def scan(self) -> Scan:
        """Return all records, and apart from them the corrupt files: a run takes those cells as missing and says so.

        Raises
        ------
        StoreError
            A record was written by a newer qbench: it is sound, so it must not be run over.
        """
        scan = Scan()
        for path in sorted((self.path / "records").glob("[!.]*.json")):
            try:
                scan.records[path.stem] = _read(path)
            except CorruptRecordError as error:
                scan.corrupt[path] = str(error)
        return scan

    def summaries(self) -> Overview:
        """Return all records in short, and apart from them the corrupt files.

        Records that are as the folder's index knows them are not read. The index is brought up to date where the
        caller holds the lock.

        Raises
        ------
        StoreError
            See `scan`.
        """
        known, lines = index.read_index(self._index_path)
        overview, added = Overview(), list[index.Entry]()
        self._indexed = {}
        for name, seen in _files(self.path / "records"):
            entry = known.get(name)
            if entry is None or entry.seen != seen:
                path = self.record_path(name)
                try:
                    entry = index.Entry(seen, Summary.of(_read(path)))
                except FileNotFoundError:
                    continue
                except CorruptRecordError as error:
                    overview.corrupt[path] = str(error)
                    continue
                if index.is_settled(seen):
                    added.append(entry)
            overview.summaries[name] = entry.summary
            self._indexed[name] = entry
        if self._held:
            self._mend_index(lines, added)
        return overview

    def has_weights(self, summary: Summary) -> bool:
        """Return whether the weights of a cell are there, and are those that its record tells of.

        Parameters
        ----------
        summary : Summary
            From `summaries`. Weights whose hash has been found right, and that have not been written to since, are not
            read again.
        """
        path, entry = self.weights_path(summary.cell_id), self._indexed.get(summary.cell_id)
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        seen = found.st_size, found.st_mtime_ns
        if entry is not None and (entry.weights, entry.summary) == (seen, summary):
            return True
        right = sha256_file(path) == summary.weights_sha256
        if right and entry is not None and entry.summary == summary and self._held and index.is_settled(seen):
            self._indexed[summary.cell_id] = entry = entry._replace(weights=seen)
            index.append_index(self._index_path, [entry])
        return right

    def records(self, ids: Iterable[str]) -> StoredRecords:
        """Return the records of some cells, in the order of the ids; each is read when it is asked for.

        Parameters
        ----------
        ids : iterable of str
            Cells that have a record.
        """
        return StoredRecords(self.read, ids)

    def write(self, record: Record) -> None:
        """Write a record in one step, over an older one of the same cell."""
        path = self.record_path(record.cell_id)
        write_text(path, dump_record(record))
        if (seen := index.stamp(path)) is not None:
            index.append_index(self._index_path, [index.Entry(seen, Summary.of(record))])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out, and clear away what a killed run left half written.

        Raises
        ------
        StoreError
            Another process runs in this folder; the message names it.
        UnwritableError
            Nothing can be written where records and weights go.
        """
        with hold(self.path):
            for place in ("records", "weights"):
                require_writable(self.path / place)
            # Only what `atomic` leaves, only where it writes: the folder may hold files of the user's own.
            tensors = ".*.safetensors.*.tmp"
            left = {"records": ".*.json.*.tmp", "weights": tensors, "checkpoints": tensors, ".": f".{index.NAME}.*.tmp"}
            for place, pattern in left.items():
                for leftover in (self.path / place).glob(pattern):
                    leftover.unlink(missing_ok=True)
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def _mend_index(self, lines: int, added: list[index.Entry]) -> None:
        """Have the index say what was found, and not much else."""
        if lines + len(added) > 2 * len(self._indexed) + _SPARE_LINES or (added and not lines):
            settled = (entry for entry in self._indexed.values() if index.is_settled(entry.seen))
            index.write_index(self._index_path, settled)
        elif added:
            index.append_index(self._index_path, added)


def repeat_folders(run_path: Path) -> list[Path]:
    """Return the folders of a run's repeats, in order: its cells again under other arithmetic (``qbench repeat``).

    Parameters
    ----------
    run_path : Path
        The folder of a run. Each repeat is ``repeats/<number>`` in it, laid out as a `RunFolder`.
    """
    found = (run_path / "repeats").glob("*")
    return sorted((path for path in found if path.name.isdecimal() and path.is_dir()), key=lambda path: int(path.name))


def _files(folder: Path) -> list[tuple[str, index.Seen]]:
    """Return the cell ids that have a file among the records, in order, each with its size and time."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                with suppress(FileNotFoundError):  # gone since
                    about = entry.stat()
                    found.append((entry.name.removesuffix(".json"), (about.st_size, about.st_mtime_ns)))
    return sorted(found)


def _read(path: Path) -> Record:
    try:
        record = parse_record(path.read_text(encoding="utf-8"))
    except CorruptRecordError:
        raise
    except UnicodeDecodeError as error:
        raise CorruptRecordError(f"not UTF-8 ({error.reason})") from error
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    if record.cell_id != path.stem:
        raise CorruptRecordError(f"holds the record of another cell, {record.cell_id}")
    return record


def _mend(path: Path, reason: str) -> str:
    return f"{path} is no record: {reason}. Remove it; its cell will be run again"

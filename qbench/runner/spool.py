"""A place that all machines of a run can write to: a shared folder, or a URL that fsspec knows.

Workers leave weights and records there, under the names that they have in the run's folder, and the run takes them
from there, so that what was done while nobody listened is not lost.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qbench import atomic
from qbench.errors import QBenchError, StoreError, UnwritableError
from qbench.runner.identity import PlannedCell
from qbench.store.folder import RunFolder
from qbench.store.schema import CorruptRecordError, parse_record

_PIECE = 16 << 20
_OF_A_PROCESS = {"data", "memory", "reference"}
# Where an object is there when its upload has ended, and not before: nothing has to be renamed.
_OBJECT_STORES = {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"}


class Spool:
    """A folder for records and weights, here or anywhere.

    Parameters
    ----------
    url : str
        A path, or a URL such as ``s3://bucket/run``.

    Raises
    ------
    QBenchError
        No file system is known by that name, or its package is missing.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self._fs, root = url_to_fs(url)
        except Exception as error:  # of whatever package stands behind a protocol
            raise QBenchError(f"--spool {url}: {str(error).partition(chr(10))[0]}") from error
        self._root = str(root).rstrip("/")
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self.is_local = bool(protocols & {"file", "local"})
        self._is_store = bool(protocols & _OBJECT_STORES)

    def keep(self, cell_id: str, record: str, weights: Path | None) -> None:
        """Leave what a cell came to; its record last, which says that the rest is there.

        Parameters
        ----------
        cell_id : str
            Of the cell.
        record : str
            Its record's JSON.
        weights : Path or None
            A file with its packed weights; None where it has none.

        Raises
        ------
        UnwritableError
            It cannot be written.
        """
        if weights is not None:
            self._write(f"weights/{cell_id}.safetensors", weights)
        self._write(f"records/{cell_id}.json", record.encode())

    def record(self, cell_id: str) -> str:
        """Return the JSON of a record that is there."""
        with self._reading():
            data: bytes = self._fs.cat_file(f"{self._root}/records/{cell_id}.json")
        return data.decode()

    def records(self) -> set[str]:
        """Return the ids of the cells whose records are there: one listing, whatever they hold."""
        try:
            names = self._fs.ls(f"{self._root}/records", detail=False)
        except FileNotFoundError:
            return set()
        except Exception as error:  # of whatever package
            raise StoreError(f"cannot read {self.url}: {error}") from error
        found = (str(name).rpartition("/")[2] for name in names)
        return {name.removesuffix(".json") for name in found if name.endswith(".json") and not name.startswith(".")}

    def weights(self, cell_id: str, to: Path) -> None:
        """Copy the packed weights of a cell, where there are any and `to` is not the same file.

        Raises
        ------
        UnwritableError
            They cannot be written.
        """
        name = f"{self._root}/weights/{cell_id}.safetensors"
        if self.is_local and Path(name).resolve() == to.resolve():
            return
        with self._reading():
            if not self._fs.exists(name):
                return
            file = self._fs.open(name, "rb")
        with file:
            atomic.write_pieces(to, _pieces(file))

    def checkpoint_path(self, cell_id: str) -> Path | None:
        """Return where a training leaves its checkpoint; None on a spool that is no folder."""
        return RunFolder(Path(self._root)).checkpoint_path(cell_id) if self.is_local else None

    def forget_checkpoint(self, cell_id: str) -> None:
        """Remove the checkpoint of a cell that has ended, or is to begin anew."""
        if (path := self.checkpoint_path(cell_id)) is not None:
            path.unlink(missing_ok=True)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whatever package
            raise StoreError(f"cannot read {self.url}: {error}") from error

    def _write(self, name: str, data: bytes | Path) -> None:
        path = f"{self._root}/{name}"
        if self.is_local:
            if isinstance(data, bytes):
                atomic.write_bytes(Path(path), data)
                return
            with data.open("rb") as file:
                atomic.write_pieces(Path(path), _pieces(file))
            return
        folder, _, last = path.rpartition("/")
        to = path if self._is_store else f"{folder}/.{last}.{uuid.uuid4().hex}.tmp"
        try:
            self._fs.makedirs(folder, exist_ok=True)
            if isinstance(data, bytes):
                self._fs.pipe_file(to, data)
            else:
                self._fs.put_file(str(data), to)
            if to != path:
                self._fs.mv(to, path)
        except Exception as error:  # of whatever package
            raise UnwritableError(f"cannot write {self.url}/{name}: {error}") from error


def shared_place(given: str) -> str:
    """Return a spool that means the same on every machine: a path from the root, or a URL.

    Raises
    ------
    QBenchError
        It is neither, or means something else in every process.
    UnwritableError
        It is a folder that cannot be written.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", given)
    if not given or (scheme is not None and not given.startswith(f"{scheme[0]}//")):
        raise QBenchError(f"--spool {given!r} is neither a folder nor a URL (allowed: a path, or s3://bucket/folder)")
    if scheme is not None and scheme[1].lower() in _OF_A_PROCESS:
        raise QBenchError(f"--spool {given}: other machines do not see it (allowed: a path, or s3://bucket/folder)")
    if scheme is not None:
        Spool(given)
        return given
    folder = Path(given).absolute()
    for name in ("records", "weights"):
        atomic.require_writable(folder / name)
    return str(folder)


def collect(spool: Spool, todo: Iterable[PlannedCell], folder: RunFolder) -> int:
    """Take into a run's folder what workers have left for it since; return how many cells that is.

    Parameters
    ----------
    spool : Spool
        Where they left it. All of it stays there.
    todo : iterable of PlannedCell
        The cells that the folder lacks. A record that is no sound one of its cell is left aside.
    folder : RunFolder
        The run's; the caller holds its lock.

    Raises
    ------
    UnwritableError
        The folder cannot be written.
    """
    there = spool.records()
    taken = 0
    for one in todo:
        if one.cell_id not in there:
            continue
        try:
            record = parse_record(spool.record(one.cell_id))
        except (CorruptRecordError, UnicodeDecodeError):
            continue
        if record.status != "ok" or record.cell_id != one.cell_id or record.key != one.key:
            continue
        spool.weights(one.cell_id, folder.weights_path(one.cell_id))
        folder.write(record)
        taken += 1
    return taken


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece

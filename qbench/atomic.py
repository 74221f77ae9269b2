"""Files that are either wholly written or not there: a kill at any instant leaves no half file."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qbench.errors import UnwritableError

_CURES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "allow larger files there",
    errno.EROFS: "write somewhere else, or make it writable",
    errno.EACCES: "write somewhere else, or make it writable",
    errno.EPERM: "write somewhere else, or make it writable",
    errno.ENOTDIR: "a file is where a folder should be: move it away",
    errno.EEXIST: "a file is where a folder should be: move it away",
}


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` by way of a temporary file in the same folder, fsync and rename.

    Parameters
    ----------
    path : Path
        The file to make or replace; its folder is made when missing.
    data : bytes
        The whole content.

    Raises
    ------
    UnwritableError
        The disk is full, the folder is read-only, or the like; the message says what to do. `path` is as it was.
    """
    write_pieces(path, (data,))


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write what does not have to be in memory at once, piece by piece; see `write_bytes`.

    Parameters
    ----------
    path : Path
        The file to make or replace.
    pieces : iterable of bytes or memoryview
        The content, in order.
    """
    try:
        _write(path, pieces)
    except OSError as error:
        raise unwritable(path, error) from error


def require_writable(folder: Path) -> None:
    """Make a folder where it is missing, and make sure that files can be made in it.

    Raises
    ------
    UnwritableError
        They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> UnwritableError:
    """Return the error to raise where `path` cannot be written: the file, what happened, what to do."""
    cure = _CURES.get(error.errno or 0)
    said = error.strerror or str(error) or type(error).__name__
    return UnwritableError(f"cannot write {path}: {said}" + (f" ({cure})" if cure else ""))


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    # There is no call that only reads the mask.
    mask = os.umask(0)
    os.umask(mask)
    return mask

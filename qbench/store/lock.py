"""One process at a time in a folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from qbench.atomic import require_writable, unwritable, write_text
from qbench.errors import StoreError

_LOCK, _HOLDER = ".lock", ".holder.json"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder that is made when missing.

    The operating system drops the lock when its holder dies, so a killed run never leaves a folder locked.

    Raises
    ------
    StoreError
        Another process holds it; the message names that process.
    UnwritableError
        Nothing can be written there.
    """
    require_writable(folder)
    lock = FileLock(folder / _LOCK, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError(
            f"{folder} is in use by {_holder(folder)}: wait until it ends, or give another folder with --out"
        ) from error
    except OSError as error:
        raise unwritable(folder / _LOCK, error) from error
    # Whoever fails to get the lock may truncate the lock file, so the holder signs in a file of its own.
    sign = folder / _HOLDER
    try:
        write_text(sign, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": _now()}))
        yield
    finally:
        sign.unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        sign = json.loads((folder / _HOLDER).read_text())
        return f"process {sign['pid']} on {sign['host']} since {sign['since']}"
    except (OSError, ValueError, KeyError):
        return "another process, which has not signed its name yet"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

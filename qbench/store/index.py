"""The index of a run folder: of each record its file's size and time, and what it says in short.

It spares reading the records, and is nothing but that: what it says of a file counts while the file has the size and
the time that it had, all else is read from the record. Without it, or where it is torn, altered or another's, nothing
is lost but time.

The file is ``.index.jsonl``: a line that says what the lines below it are, then one for each record that was written,
in the order of writing, so that the last line of a cell counts. Each begins with a sum over the rest of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from qbench import __version__, atomic
from qbench.errors import UnwritableError
from qbench.store.record import SCHEMA_VERSION
from qbench.store.summary import Summary, share_names

NAME = ".index.jsonl"
INDEX_VERSION = 1

_FIELDS = tuple(field.name for field in fields(Summary))
_of_summary = attrgetter(*_FIELDS)
_HEAD = json.dumps(
    {"index": INDEX_VERSION, "qbench": __version__, "records": SCHEMA_VERSION, "fields": _FIELDS}
).encode()
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system in use
_LONGEST_LINE = 1 << 20

Seen = tuple[int, int]
"""Size of a file in bytes, and when it was last written, in nanoseconds."""


class Entry(NamedTuple):
    """What is known of a record's file.

    Attributes
    ----------
    seen : Seen
        The file as it was when it said what `summary` tells.
    summary : Summary
        What it said.
    weights : Seen or None
        The cell's weights as they were when their hash was found to be that of the record; None where nobody looked.
    """

    seen: Seen
    summary: Summary
    weights: Seen | None = None


def read_index(path: Path) -> tuple[dict[str, Entry], int]:
    """Return what an index says, by cell id, and how many lines it takes to say it.

    Parameters
    ----------
    path : Path
        A file that need not be there. One of another layout, or of another qbench, says nothing, and has no lines.
    """
    entries: dict[str, Entry] = {}
    lines = 0
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.readline(_LONGEST_LINE).rstrip(b"\n") != _HEAD:
            return {}, 0
        while line := file.readline(_LONGEST_LINE):
            lines += 1
            if (entry := _parse(line)) is not None:
                entries[entry.summary.cell_id] = entry
    return entries, lines


def append_index(path: Path, entries: Iterable[Entry]) -> None:
    """Add lines to an index, at once; where that cannot be, they are missing."""
    data = b"".join(_lines(entries))
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, data if os.fstat(handle).st_size else _HEAD + b"\n" + data)
        finally:
            os.close(handle)


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Make an index anew, in one step; where that cannot be, it is as it was."""
    with contextlib.suppress(UnwritableError):
        atomic.write_pieces(path, (_HEAD + b"\n", *_lines(entries)))


def is_settled(seen: Seen) -> bool:
    """Return whether a file that is written to from now on will have another time than it has."""
    return seen[1] < time.time_ns() - _SETTLED_NS


def stamp(path: Path) -> Seen | None:
    """Give a file that has just been written a time that no later change can give it by chance.

    The clock that the system stamps files by stands still for milliseconds, so that a change right after the writing
    could leave the time as it is.

    Returns
    -------
    Seen or None
        None where the file system does not keep such a time.
    """
    now = time.time_ns() // 1000 * 1000
    try:
        os.utime(path, ns=(now, now))
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, now) if found.st_mtime_ns == now else None


def _lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    for entry in entries:
        try:
            body = json.dumps([*entry.seen, entry.weights, *_of_summary(entry.summary)], allow_nan=False).encode()
        except ValueError:  # a time that is not finite: its record is read each time
            continue
        yield b'["%08x", %b]\n' % (zlib.crc32(body), body)


def _parse(line: bytes) -> Entry | None:
    body = line[13:-2]
    if line != b'["%08x", %b]\n' % (zlib.crc32(body), body):
        return None
    try:
        size, mtime_ns, weights, *rest = json.loads(body.decode())
        values: dict[str, Any] = dict(zip(_FIELDS, rest, strict=True))
        values["axes"], values["status"] = share_names(values["axes"]), intern(values["status"])
        values["fallbacks"] = tuple(values["fallbacks"])
        return Entry((size, mtime_ns), Summary(**values), None if weights is None else tuple(weights))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None

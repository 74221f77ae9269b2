"""All records of a suite in one file that git can keep, and the cells the suite had when it was written.

The file is ``<suite>.jsonl.xz``: a line for what it is, then one for each record, sorted. Tables and figures are made
from it alone, so that they can be made again where nothing was ever run. Weights and repeats stay in the run folder.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench import atomic
from qbench.errors import StoreError
from qbench.store.floats import dumps
from qbench.store.record import Record
from qbench.store.schema import CorruptRecordError, parse_record

SUFFIX = ".jsonl.xz"
SCHEMA_VERSION = 1

_MOST_BYTES = 4 << 30  # what a file may unpack to: some 200,000 records
_LONGEST_LINE = 64 << 20
_PIECE = 1 << 20

Axes = Mapping[str, str | int | None]


@dataclass(frozen=True)
class Archive:
    """Records of a suite.

    Attributes
    ----------
    suite : str
        Its name.
    places, probes : sequence of Axes
        Axes of every cell the suite had, in its order, those of probes apart; a skipped one has its reason under
        ``skip``.
    records : sequence of Record
        In any order.
    """

    suite: str
    places: Sequence[Axes]
    probes: Sequence[Axes]
    records: Sequence[Record]


def is_archive(path: Path) -> bool:
    """Return whether a path has the name of an archive."""
    return path.name.endswith(SUFFIX)


def write_archive(path: Path, archive: Archive) -> None:
    """Write an archive in one step; the same records give the same bytes.

    Parameters
    ----------
    path : Path
        See `SUFFIX`.
    archive : Archive
        What to write.

    Raises
    ------
    UnwritableError
        See `atomic.write_bytes`.
    """
    head = {
        "archive_version": SCHEMA_VERSION,
        "suite": archive.suite,
        "places": [dict(axes) for axes in archive.places],
        "probes": [dict(axes) for axes in archive.probes],
    }
    held = sorted(archive.records, key=lambda record: (record.label, record.cell_id))
    lines = [dumps(head), *(dumps(record.model_dump()) for record in held)]
    # Checked by the format's own sum; the preset is part of what makes bytes reproducible.
    packed = lzma.compress(("\n".join(lines) + "\n").encode(), preset=9, check=lzma.CHECK_CRC64)
    atomic.write_bytes(path, packed)


def read_archive(path: Path) -> Archive:
    """Return what an archive holds.

    Parameters
    ----------
    path : Path
        From `write_archive`.

    Raises
    ------
    StoreError
        It cannot be read, is no archive, was written by a newer qbench, or unpacks to too much.
    """
    lines = _lines(path)
    head = _head(path, next(lines, b""))
    records = []
    for number, line in enumerate(lines, 2):
        try:
            records.append(parse_record(line.decode("utf-8")))
        except (CorruptRecordError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}, line {number}: no record ({error})") from error
    return Archive(head["suite"], head["places"], head["probes"], records)


def _head(path: Path, line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
        version = head["archive_version"]
        known = isinstance(head["suite"], str) and all(isinstance(head[name], list) for name in ("places", "probes"))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no archive of records: its first line does not say so") from error
    if version != SCHEMA_VERSION or not known:
        raise StoreError(f"{path} is an archive of version {version!r} (this qbench reads {SCHEMA_VERSION})")
    found: dict[str, Any] = head
    return found


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a packed file without unpacking more than it may hold."""
    rest, total = b"", 0
    try:
        with lzma.open(path) as file:
            while piece := file.read(_PIECE):
                total += len(piece)
                if total > _MOST_BYTES:
                    raise StoreError(f"{path} unpacks to more than {_MOST_BYTES >> 30} GiB: it is not read")
                *whole, rest = (rest + piece).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    raise StoreError(f"{path} holds a line of more than {_LONGEST_LINE >> 20} MiB: it is not read")
                yield from whole
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if rest:
        raise StoreError(f"{path} ends within a line: it was cut short")

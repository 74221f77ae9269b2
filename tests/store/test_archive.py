"""The file of published records: whole, the same bytes for the same records, and read with suspicion."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import StoreError
from qbench.store import archive as archives
from qbench.store.archive import Archive, is_archive, read_archive, write_archive
from qbench.store.record import Record
from qbench.store.schema import dump_record

MakeRecord = Callable[..., Record]


@pytest.fixture
def archive(make_record: MakeRecord) -> Archive:
    labels = ["llama-1m/fp/s0", "llama-1m/mse/2b/rtn/s0", "llama-1m/mse/2b/gptq/s0"]
    records = [make_record(label) for label in labels]
    records[1].metrics["odd"] = math.nan
    places: list[dict[str, Any]] = [{**record.axes, "skip": None} for record in records]
    places.append({**records[1].axes, "bits": 4, "skip": "too easy"})
    return Archive("tiny", places, [], records)


def lines_of(path: Path) -> list[bytes]:
    return lzma.decompress(path.read_bytes()).splitlines()


def pack(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(lzma.compress(b"".join(line + b"\n" for line in lines)))


def test_what_was_written_is_read(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "tiny.jsonl.xz"
    write_archive(path, archive)
    found = read_archive(path)
    assert is_archive(path) and not is_archive(tmp_path / "tiny.json")
    assert (found.suite, found.places, found.probes) == ("tiny", archive.places, [])
    held = {record.label: record for record in found.records}
    for record in archive.records:
        assert dump_record(held[record.label]) == dump_record(record)


def test_the_order_of_records_changes_no_byte(archive: Archive, tmp_path: Path) -> None:
    write_archive(tmp_path / "a.jsonl.xz", archive)
    backwards = Archive(archive.suite, archive.places, archive.probes, archive.records[::-1])
    write_archive(tmp_path / "b.jsonl.xz", backwards)
    assert (tmp_path / "a.jsonl.xz").read_bytes() == (tmp_path / "b.jsonl.xz").read_bytes()


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(archive: Archive, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "tiny.jsonl.xz"
    write_archive(path, archive)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(StoreError, match=r"tiny\.jsonl\.xz"):
        read_archive(path)


def test_a_line_that_is_no_record_is_named(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "tiny.jsonl.xz"
    write_archive(path, archive)
    lines = lines_of(path)
    pack(path, [*lines[:2], b'{"schema_version": 1}', *lines[2:]])
    with pytest.raises(StoreError, match="line 3: no record"):
        read_archive(path)


@pytest.mark.parametrize("head", [b"", b"[]", b"{}", b"nonsense", b'{"archive_version": 1}'])
def test_what_is_no_archive_is_refused(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "tiny.jsonl.xz"
    pack(path, [head])
    with pytest.raises(StoreError, match="no archive of records"):
        read_archive(path)


def test_an_archive_of_a_newer_qbench_is_refused(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "tiny.jsonl.xz"
    write_archive(path, archive)
    first, *rest = lines_of(path)
    pack(path, [json.dumps({**json.loads(first), "archive_version": 99}).encode(), *rest])
    with pytest.raises(StoreError, match="version 99"):
        read_archive(path)


def test_what_unpacks_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.jsonl.xz"
    path.write_bytes(lzma.compress(b"0" * (8 << 20)))
    monkeypatch.setattr(archives, "_LONGEST_LINE", 2 << 20)
    with pytest.raises(StoreError, match="more than 2 MiB"):
        read_archive(path)
    path.write_bytes(lzma.compress(b"0\n" * (4 << 20)))
    monkeypatch.setattr(archives, "_MOST_BYTES", 1000)
    with pytest.raises(StoreError, match="unpacks to more"):
        read_archive(path)

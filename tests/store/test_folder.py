"""The folder of a run: nothing is lost silently, and nobody else writes in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import StoreError
from qbench.store.folder import RunFolder, repeat_folders
from qbench.store.newest import newest
from qbench.store.record import SCHEMA_VERSION, Record
from qbench.store.schema import dump_record
from qbench.store.summary import Summary

MakeRecord = Callable[..., Record]

HOLDER = """
import pathlib, sys, time
from qbench.store.folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""

WRITER = """
import itertools, pathlib, sys
from qbench.store.folder import RunFolder
from qbench.store.schema import parse_record
record = parse_record(pathlib.Path(sys.argv[2]).read_text())
folder = RunFolder(pathlib.Path(sys.argv[1]))
with folder.lock():
    for turn in itertools.count():
        folder.write(record.model_copy(update={"cell_id": f"cell{turn % 7}", "traces": {"train_loss": [0.1] * 20_000}}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_what_is_written_is_read(folder: RunFolder, make_record: MakeRecord) -> None:
    first, second = make_record(), make_record("llama-1m/fp/s0")
    folder.write(first)
    folder.write(second)
    assert folder.read(first.cell_id) == first
    assert folder.read_all() == {first.cell_id: first, second.cell_id: second}
    assert folder.weights_path("ab").name == "ab.safetensors"


def test_repeats_are_found_in_their_order(folder: RunFolder, make_record: MakeRecord) -> None:
    assert repeat_folders(folder.path) == []
    for number in (10, 2, 1):
        RunFolder(folder.path / "repeats" / str(number)).write(make_record())
    (folder.path / "repeats" / "notes.txt").write_text("mine")
    (folder.path / "repeats" / "3").write_text("no folder")
    assert [path.name for path in repeat_folders(folder.path)] == ["1", "2", "10"]
    assert all(RunFolder(path).read_all() for path in repeat_folders(folder.path))
    assert folder.read_all() == {}  # they are not the run's own


def test_nothing_there_is_no_error(folder: RunFolder) -> None:
    assert folder.read("nobody") is None
    assert folder.read_all() == {}


def test_a_record_is_written_over(folder: RunFolder, make_record: MakeRecord) -> None:
    folder.write(make_record(status="failed", reason="out of memory"))
    folder.write(make_record())
    assert [record.status for record in folder.read_all().values()] == ["ok"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 1}', b"\xff\xfe"])
def test_a_corrupt_record_is_named_with_its_cure(folder: RunFolder, make_record: MakeRecord, content: bytes) -> None:
    good = make_record("llama-1m/fp/s0")
    folder.write(good)
    broken = folder.record_path("broken")
    broken.write_bytes(content)
    for read in (folder.read_all, lambda: folder.read("broken")):
        with pytest.raises(StoreError, match=r"broken\.json is no record: .*Remove it; its cell will be run again"):
            read()
    scan = folder.scan()
    assert scan.records == {good.cell_id: good}
    assert list(scan.corrupt) == [broken]


def test_a_record_under_a_wrong_name_is_corrupt(folder: RunFolder, make_record: MakeRecord) -> None:
    folder.write(make_record())
    folder.record_path(make_record().cell_id).rename(folder.record_path("other"))
    assert "another cell" in next(iter(folder.scan().corrupt.values()))


def test_a_newer_record_is_never_run_over(folder: RunFolder, make_record: MakeRecord) -> None:
    folder.write(make_record())
    path = folder.record_path(make_record().cell_id)
    newer = dump_record(make_record()).replace(
        f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}'
    )
    path.write_text(newer)
    with pytest.raises(StoreError, match="newer qbench"):
        folder.scan()


def test_the_lock_says_who_holds_it_and_falls_with_its_holder(folder: RunFolder) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):
            with pytest.raises(StoreError, match=rf"in use by process {holder.pid} on .* since .*--out"), folder.lock():
                pass
        holder.kill()
        holder.wait()
    with folder.lock():
        pass


def test_one_process_cannot_hold_it_twice(folder: RunFolder) -> None:
    with folder.lock(), pytest.raises(StoreError, match=f"process {os.getpid()} "), RunFolder(folder.path).lock():
        pass
    with folder.lock():
        pass


def test_taking_the_lock_clears_away_half_files(folder: RunFolder, make_record: MakeRecord) -> None:
    folder.write(make_record())
    leftovers = [folder.path / "records" / ".a.json.x.tmp", folder.path / "weights" / ".a.safetensors.y.tmp"]
    for leftover in leftovers:
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_text("half")
    assert len(folder.read_all()) == 1
    with folder.lock():
        assert not any(leftover.exists() for leftover in leftovers)
        assert len(folder.read_all()) == 1


def test_a_killed_run_leaves_only_sound_records(folder: RunFolder, make_record: MakeRecord, tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text(dump_record(make_record()))
    for turn in range(2):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder.path), str(template)])
        deadline = time.monotonic() + 30
        while not folder.record_path("cell6").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 + 0.031 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert sorted(folder.read_all()) == [f"cell{number}" for number in range(7)]
        with folder.lock():
            assert not list(folder.path.rglob("*.tmp"))


def test_the_newest_of_a_label_counts(make_record: MakeRecord) -> None:
    old = make_record(cell_id="b", ended="2026-08-01T10:00:00+00:00")
    new = make_record(cell_id="a", ended="2026-08-02T10:00:00+00:00")
    other = make_record("llama-1m/fp/s0")
    assert newest([new, old, other]) == newest([old, other, new]) == {new.label: new, other.label: other}


def test_files_of_the_user_are_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    own = [tmp_path / "notes.tmp", tmp_path / "sub" / "thesis.tmp", tmp_path / "records" / "mine.tmp"]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("keep me", encoding="utf-8")
    with folder.lock():
        pass
    assert all(path.read_text(encoding="utf-8") == "keep me" for path in own)


def test_an_overview_is_a_scan_in_short(folder: RunFolder, make_record: MakeRecord) -> None:
    for record in (make_record(), make_record("llama-1m/fp/s0"), make_record(cell_id="other", status="failed")):
        folder.write(record)
    folder.record_path("broken").write_text("{")
    scan, found = folder.scan(), folder.summaries()
    assert found.summaries == {cell_id: Summary.of(record) for cell_id, record in scan.records.items()}
    assert list(found.summaries) == list(scan.records)
    assert found.corrupt == scan.corrupt

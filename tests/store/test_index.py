"""The index of a run folder spares reading its records, and never says what they do not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import StoreError
from qbench.store import folder as folders
from qbench.store import index
from qbench.store.folder import RunFolder
from qbench.store.index import NAME, Entry, append_index, read_index, write_index
from qbench.store.record import SCHEMA_VERSION, Cost, Record
from qbench.store.schema import dump_record
from qbench.store.summary import Summary

MakeRecord = Callable[..., Record]
IDS = [f"cell{number}" for number in range(6)]
HOUR = 3_600_000_000_000


@pytest.fixture
def folder(tmp_path: Path, make_record: MakeRecord) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    for number, cell_id in enumerate(IDS):
        folder.write(make_record(cell_id=cell_id, reason=f"\u00fc{number}", cost=Cost(method_seconds=number / 3)))
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the records that are read from now on."""
    seen: list[str] = []
    original = folders._read

    def reading(path: Path) -> Record:
        seen.append(path.stem)
        return original(path)

    monkeypatch.setattr(folders, "_read", reading)
    return seen


def age(path: Path) -> None:
    """Have a file be an hour old."""
    past = time.time_ns() - HOUR
    os.utime(path, ns=(past, past))


def age_records(folder: RunFolder) -> None:
    for path in (folder.path / "records").iterdir():
        age(path)


def truth(folder: RunFolder) -> dict[str, Summary]:
    """Return what the records say, read one by one."""
    return {cell_id: Summary.of(record) for cell_id, record in folder.scan().records.items()}


def lines(folder: RunFolder) -> int:
    return len((folder.path / NAME).read_bytes().splitlines())


def test_what_was_written_is_not_read_again(folder: RunFolder, read: list[str]) -> None:
    expected = truth(folder)
    read.clear()
    found = folder.summaries()
    assert found.summaries == expected and list(found.summaries) == IDS and found.corrupt == {}
    assert read == []


def test_without_it_nothing_is_lost_and_looking_writes_nothing(folder: RunFolder, read: list[str]) -> None:
    expected = truth(folder)
    (folder.path / NAME).unlink()
    age_records(folder)
    read.clear()
    assert folder.summaries().summaries == expected
    assert read == IDS and not (folder.path / NAME).exists()


def test_with_the_lock_it_is_made_again(folder: RunFolder, read: list[str]) -> None:
    expected = truth(folder)
    (folder.path / NAME).unlink()
    age_records(folder)
    with folder.lock():
        folder.summaries()
    read.clear()
    assert RunFolder(folder.path).summaries().summaries == expected and read == []


def test_a_record_that_is_written_over_counts_as_it_is_now(folder: RunFolder, make_record: MakeRecord) -> None:
    folder.write(make_record(cell_id="cell2", status="failed", reason="no luck"))
    assert folder.summaries().summaries["cell2"].status == "failed"
    assert folder.summaries().summaries == truth(folder)


def test_a_change_of_no_length_right_after_the_writing_is_seen(folder: RunFolder, make_record: MakeRecord) -> None:
    """The system's clock may stand still between the two."""
    for cell_id in IDS * 20:
        record = make_record(cell_id=cell_id, reason="aaaa", status="failed")
        folder.write(record)
        folder.record_path(cell_id).write_text(dump_record(record.model_copy(update={"reason": "bbbb"})))
        assert folder.summaries().summaries[cell_id].reason == "bbbb"


@pytest.mark.parametrize("damage", ["cut", "changed", "another"])
def test_a_corrupt_record_is_told_of_though_it_was_sound(folder: RunFolder, damage: str) -> None:
    path = folder.record_path("cell3")
    text = path.read_text()
    path.write_text(
        {
            "cut": text[:200],
            "changed": text.replace('"status"', '"sadist"'),
            "another": text.replace("cell3", "cell4"),
        }[damage]
    )
    found = folder.summaries()
    assert list(found.corrupt) == [path] and list(found.summaries) == [one for one in IDS if one != "cell3"]
    assert found.corrupt == folder.scan().corrupt


def test_a_record_of_a_newer_qbench_is_refused_though_it_was_known(folder: RunFolder) -> None:
    path = folder.record_path("cell1")
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    with pytest.raises(StoreError, match="newer qbench"):
        folder.summaries()


def test_a_record_that_is_gone_is_gone(folder: RunFolder) -> None:
    folder.record_path("cell1").unlink()
    assert list(folder.summaries().summaries) == [one for one in IDS if one != "cell1"]


def test_files_that_are_no_records_are_passed_over(folder: RunFolder) -> None:
    records = folder.path / "records"
    (records / ".cell9.json.x.tmp").write_text("half")
    (records / ".hidden.json").write_text("{")
    (records / "notes.txt").write_text("mine")
    (records / "nowhere.json").symlink_to("gone")
    assert list(folder.summaries().summaries) == IDS


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_index_costs_time_alone(folder: RunFolder, make_record: MakeRecord, seed: int) -> None:
    """Torn in the middle of a line, bytes changed, pieces left out or put in, and written to again after that."""
    chance = random.Random(seed)
    path = folder.path / NAME
    whole = path.read_bytes()
    for _ in range(25):
        start = chance.randrange(len(whole))
        end = chance.choice([start + 1, start + chance.randrange(200), len(whole)])
        put = chance.choice([b"", chance.randbytes(end - start), b"\n", whole[: chance.randrange(len(whole))]])
        path.write_bytes(whole[:start] + put + whole[end:])
        assert folder.summaries().summaries == truth(folder)
        folder.write(make_record(cell_id="cell2", status="failed", reason=str(chance.random())))
        assert folder.summaries().summaries == truth(folder)


def test_a_line_that_was_torn_costs_the_next_one_at_most(folder: RunFolder, read: list[str]) -> None:
    path = folder.path / NAME
    path.write_bytes(path.read_bytes()[:-30])
    folder.write(folder.scan().records["cell0"])
    read.clear()
    assert folder.summaries().summaries == truth(folder)
    assert set(read[: -len(IDS)]) <= {"cell0", "cell5"}


@pytest.mark.parametrize("kind", ["empty", "garbage", "folder", "newer", "bare"])
def test_what_is_no_index_of_this_qbench_says_nothing(folder: RunFolder, read: list[str], kind: str) -> None:
    expected, path = truth(folder), folder.path / NAME
    head, *rest = path.read_bytes().splitlines(keepends=True)
    read.clear()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        newer = head.replace(f'"index": {index.INDEX_VERSION}'.encode(), b'"index": 99')
        written = {"empty": b"", "garbage": b"\xff\x00" * 5000, "newer": newer + b"".join(rest), "bare": b"".join(rest)}
        path.write_bytes(written[kind])
    assert folder.summaries().summaries == expected and read == IDS
    folder.write(folder.scan().records["cell1"])
    age_records(folder)
    with folder.lock():
        assert folder.summaries().summaries == truth(folder)
    read.clear()
    assert folder.summaries().summaries == truth(folder)
    assert kind == "folder" or read == IDS, "only what was read for the truth"


def test_the_index_of_another_folder_says_nothing_of_this_one(
    folder: RunFolder, make_record: MakeRecord, tmp_path: Path
) -> None:
    other = RunFolder(tmp_path / "other")
    for cell_id in [*IDS, "theirs"]:
        other.write(make_record(cell_id=cell_id, status="failed", reason="theirs"))
    shutil.copy2(other.path / NAME, folder.path / NAME)
    assert folder.summaries().summaries == truth(folder)


def test_a_folder_that_was_copied_is_read_anew_where_times_were_not_kept(
    folder: RunFolder, read: list[str], tmp_path: Path
) -> None:
    expected = truth(folder)
    for name, copy in (("kept", shutil.copy2), ("lost", shutil.copyfile)):
        shutil.copytree(folder.path, tmp_path / name, copy_function=copy)
        read.clear()
        assert RunFolder(tmp_path / name).summaries().summaries == expected
        assert read == ([] if name == "kept" else IDS)


def test_lines_that_count_no_more_are_cleared_away_under_the_lock(folder: RunFolder, read: list[str]) -> None:
    record = folder.scan().records["cell0"]
    for _ in range(150):
        folder.write(record)
    assert lines(folder) == 1 + len(IDS) + 150
    folder.summaries()
    assert lines(folder) == 1 + len(IDS) + 150
    age_records(folder)
    with folder.lock():
        folder.summaries()
    assert lines(folder) == 1 + len(IDS)
    read.clear()
    assert len(folder.summaries().summaries) == len(IDS) and read == []


def test_a_record_that_was_just_put_there_is_not_taken_up_yet(folder: RunFolder, read: list[str]) -> None:
    """It could be changed once more without another time."""
    (folder.path / NAME).unlink()
    for path in (folder.path / "records").iterdir():
        path.write_bytes(path.read_bytes())
    with folder.lock():
        folder.summaries()
    read.clear()
    folder.summaries()
    assert read == IDS


def test_a_time_that_is_no_number_is_read_from_its_record(
    folder: RunFolder, make_record: MakeRecord, read: list[str]
) -> None:
    folder.write(make_record(cell_id="odd", cost=Cost(method_seconds=float("inf"))))
    found = folder.summaries()
    assert found.summaries["odd"].seconds == float("inf") and read == ["odd"]
    json.loads((folder.path / NAME).read_bytes().splitlines()[-1])


def test_entries_are_read_as_they_were_written(tmp_path: Path, make_record: MakeRecord) -> None:
    entries = [
        Entry((1, 2), Summary.of(make_record(fallback="dead", key={"probe": {}}, weights_sha256="ab")), (3, 4)),
        Entry((5, 6), Summary.of(make_record("llama-1m/fp/s0", status="skipped", reason="\n"))),
    ]
    for write in (append_index, write_index):
        path = tmp_path / write.__name__
        write(path, entries)
        assert read_index(path) == ({entry.summary.cell_id: entry for entry in entries}, 2)
    assert read_index(tmp_path / "nothing") == ({}, 0)


class TestWeights:
    """Weights are read until their hash was found right, and again after they were written to."""

    @pytest.fixture
    def hashed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        original = folders.sha256_file
        monkeypatch.setattr(folders, "sha256_file", lambda path: seen.append(path.stem) or original(path))
        return seen

    @pytest.fixture
    def folder(self, tmp_path: Path, make_record: MakeRecord) -> RunFolder:
        folder = RunFolder(tmp_path / "run")
        path = folder.weights_path("a")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        age(path)
        folder.write(make_record(cell_id="a", weights_sha256=hashlib.sha256(b"weights").hexdigest()))
        return folder

    @staticmethod
    def ask(folder: RunFolder) -> bool:
        again = RunFolder(folder.path)
        with again.lock():
            return again.has_weights(again.summaries().summaries["a"])

    def test_they_are_read_once(self, folder: RunFolder, hashed: list[str]) -> None:
        assert [self.ask(folder) for _ in range(3)] == [True] * 3
        assert hashed == ["a"]

    def test_without_the_lock_nothing_is_remembered(self, folder: RunFolder, hashed: list[str]) -> None:
        before = (folder.path / NAME).read_bytes()
        assert [folder.has_weights(folder.summaries().summaries["a"]) for _ in range(2)] == [True] * 2
        assert hashed == ["a"] * 2 and (folder.path / NAME).read_bytes() == before

    @pytest.mark.parametrize("content", [b"weight", b"weighty", b""])
    def test_a_change_is_seen(self, folder: RunFolder, hashed: list[str], content: bytes) -> None:
        assert self.ask(folder)
        folder.weights_path("a").write_bytes(content)
        assert [self.ask(folder) for _ in range(2)] == [False] * 2
        assert hashed == ["a"] * 3
        folder.weights_path("a").unlink()
        assert not self.ask(folder)

    def test_those_that_were_just_written_are_read_again(self, folder: RunFolder, hashed: list[str]) -> None:
        folder.weights_path("a").write_bytes(b"weights")
        assert [self.ask(folder) for _ in range(2)] == [True] * 2
        assert hashed == ["a"] * 2

    def test_a_record_that_tells_of_others_is_held_against_them(
        self, folder: RunFolder, make_record: MakeRecord, hashed: list[str]
    ) -> None:
        assert self.ask(folder)
        folder.write(make_record(cell_id="a", weights_sha256="ab"))
        assert not self.ask(folder)
        assert hashed == ["a"] * 2

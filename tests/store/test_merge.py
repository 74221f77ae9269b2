"""Run folders made one: nothing is lost, nothing is taken that does not count, and what differs is shown."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import StoreError
from qbench.store.folder import RunFolder, repeat_folders
from qbench.store.merge import merge
from qbench.store.record import DocumentLosses, Record
from qbench.store.same_result import Difference, differences

MakeRecord = Callable[..., Record]
RTN, GPTQ, FP = "llama-1m/mse/2b/rtn/s0", "llama-1m/mse/2b/gptq/s0", "llama-1m/fp/s0"


@pytest.fixture
def put(make_record: MakeRecord, tmp_path: Path) -> Callable[..., Record]:
    def put(run: str, label: str = RTN, loss: float = 3.0, weights: bytes | None = b"w", **fields: Any) -> Record:
        folder = RunFolder(tmp_path / run)
        quantized = label.count("/") > 2
        if quantized and weights is not None and fields.get("status", "ok") == "ok":
            fields.setdefault("weights_sha256", hashlib.sha256(weights).hexdigest())
            path = folder.weights_path(label.replace("/", "-"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(weights)
        record = make_record(label, loss, **fields)
        folder.write(record)
        return record

    return put


def files(path: Path) -> dict[str, bytes]:
    return {
        one.relative_to(path).as_posix(): one.read_bytes()
        for one in sorted(path.rglob("*"))
        if one.is_file() and not one.name.startswith(".")
    }


def test_parts_become_the_whole(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("a", FP), put("b", GPTQ, 2.5), put("b", FP), put("whole"), put("whole", GPTQ, 2.5), put("whole", FP)
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert (merged.copied, merged.same, merged.conflicts, merged.aside) == (3, 1, [], {})
    assert files(tmp_path / "c") == files(tmp_path / "whole")


def test_a_second_merge_changes_nothing(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("b", GPTQ), put("a/repeats/1", RTN, 3.1), put("b/repeats/1", GPTQ, 3.1)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    before = files(tmp_path / "c")
    again = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert (again.copied, again.kept, again.same, again.repeats) == (0, 4, 4, 1)
    assert files(tmp_path / "c") == before


def test_sources_are_only_read(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("b", RTN, 4.0), put("b", GPTQ)
    before = files(tmp_path / "a"), files(tmp_path / "b")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c", "last")
    assert (files(tmp_path / "a"), files(tmp_path / "b")) == before


def test_a_conflict_is_shown_and_its_cell_is_not_written(put: Callable[..., Record], tmp_path: Path) -> None:
    ground = {"torch": "2.8.0", "threads": 2}
    put("a", loss=3.0, environment=ground), put("b", loss=3.5, weights=b"v", environment=ground | {"threads": 4})
    put("b", GPTQ)
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    (conflict,) = merged.conflicts
    assert (conflict.label, conflict.first, conflict.second) == (RTN, tmp_path / "a", tmp_path / "b")
    assert conflict.differences[0] == Difference("loss/blocks128", "3.0", "3.5")
    assert [one.what for one in conflict.differences] == ["loss/blocks128", "weights"]
    assert conflict.unlike == {"threads": ("2", "4")}
    assert set(files(tmp_path / "c")) == {f"{place}/{GPTQ.replace('/', '-')}.{end}" for place, end in PLACES}


PLACES = (("records", "json"), ("weights", "safetensors"))


def test_full_precision_of_unlike_machines_differs_by_rounding_alone(
    put: Callable[..., Record], tmp_path: Path
) -> None:
    here, there = {"torch": "2.8.0", "threads": 2}, {"torch": "2.8.0", "threads": 4}
    put("a", FP, 3.0, environment=here), put("b", FP, 3.0 + 1e-7, environment=there)
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert (merged.rounded, merged.same, merged.copied, merged.conflicts) == (1, 0, 1, [])
    assert RunFolder(tmp_path / "c").read(FP.replace("/", "-")) == RunFolder(tmp_path / "a").read(FP.replace("/", "-"))

    put("alike", FP, 3.0 + 1e-7, environment=here), put("far", FP, 3.01, environment=there)
    for other in ("alike", "far"):
        assert len(merge([tmp_path / "a", tmp_path / other], tmp_path / f"c-{other}").conflicts) == 1

    put("a", RTN, 3.2, environment=here), put("b", RTN, 3.2 + 1e-7, weights=b"v", environment=there)
    (conflict,) = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "d").conflicts
    assert conflict.label == RTN


@pytest.mark.parametrize(("prefer", "loss", "weights"), [("first", 3.0, b"u"), ("last", 3.5, b"v")])
def test_one_of_a_conflict_may_be_preferred(
    put: Callable[..., Record], tmp_path: Path, prefer: Any, loss: float, weights: bytes
) -> None:
    put("a", loss=3.0, weights=b"u"), put("b", loss=3.2, weights=b"x"), put("d", loss=3.5, weights=b"v")
    merged = merge([tmp_path / name for name in "abd"], tmp_path / "c", prefer)
    assert len(merged.conflicts) == 2
    (record,) = RunFolder(tmp_path / "c").read_all().values()
    assert record.loss == loss
    assert RunFolder(tmp_path / "c").weights_path(record.cell_id).read_bytes() == weights


@pytest.mark.parametrize(("prefer", "loss"), [(None, 3.0), ("first", 3.0), ("last", 3.5)])
def test_the_destination_is_the_first(put: Callable[..., Record], tmp_path: Path, prefer: Any, loss: float) -> None:
    put("c", loss=3.0), put("a", loss=3.5)
    assert len(merge([tmp_path / "a"], tmp_path / "c", prefer).conflicts) == 1
    assert [record.loss for record in RunFolder(tmp_path / "c").read_all().values()] == [loss]


@pytest.mark.parametrize("sources", [["a", "b"], ["b", "a"]])
@pytest.mark.parametrize("prefer", [None, "first", "last"])
def test_the_sound_one_is_taken(put: Callable[..., Record], tmp_path: Path, sources: list[str], prefer: Any) -> None:
    put("a", status="failed", reason="out of memory", metrics={}, ended="2030-01-01T00:00:00+00:00"), put("b")
    merged = merge([tmp_path / name for name in sources], tmp_path / "c", prefer)
    assert (merged.copied, merged.replaced, merged.conflicts) == (1, 1, [])
    assert [record.status for record in RunFolder(tmp_path / "c").read_all().values()] == ["ok"]


def test_a_failed_cell_of_the_destination_is_replaced(put: Callable[..., Record], tmp_path: Path) -> None:
    put("c", status="failed", reason="out of memory", metrics={}), put("a")
    assert merge([tmp_path / "a"], tmp_path / "c").copied == 1
    assert [record.status for record in RunFolder(tmp_path / "c").read_all().values()] == ["ok"]


def test_of_failures_the_newest_is_kept(put: Callable[..., Record], tmp_path: Path) -> None:
    for run, day in (("a", 2), ("b", 1)):
        put(run, status="failed", reason=run, ended=f"2026-08-0{day}T00:00:00+00:00")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert [record.reason for record in RunFolder(tmp_path / "c").read_all().values()] == ["a"]


def test_what_does_not_count_is_told_of(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a", FP), put("a", RTN), put("a", GPTQ)
    a = RunFolder(tmp_path / "a")
    a.weights_path(RTN.replace("/", "-")).write_bytes(b"other")
    a.weights_path(GPTQ.replace("/", "-")).unlink()
    a.record_path("broken").write_text("{")
    put("b", RTN)
    merged = merge([a.path, tmp_path / "b"], tmp_path / "c")
    assert {path.name: reason for path, reason in merged.aside.items()} == {
        "llama-1m-mse-2b-rtn-s0.json": "its weights are not those it tells of",
        "llama-1m-mse-2b-gptq-s0.json": "its weights are not there",
        "broken.json": "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
    }
    assert sorted(record.label for record in RunFolder(tmp_path / "c").read_all().values()) == [FP, RTN]


def test_what_is_broken_in_the_destination_is_mended(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("a", GPTQ), put("c"), put("c", GPTQ)
    c = RunFolder(tmp_path / "c")
    c.record_path(RTN.replace("/", "-")).write_text("{")
    c.weights_path(GPTQ.replace("/", "-")).write_bytes(b"")
    merged = merge([tmp_path / "a"], c.path)
    assert merged.copied == len(merged.aside) == 2
    assert files(tmp_path / "a") == files(c.path)


def test_a_newer_record_stops_it_before_anything_is_written(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("b", GPTQ)
    path = RunFolder(tmp_path / "b").record_path(GPTQ.replace("/", "-"))
    path.write_text(path.read_text().replace('"schema_version": ', '"schema_version": 9'))
    with pytest.raises(StoreError, match="newer qbench"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_repeats_of_shards_become_one_and_those_of_machines_more(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("a/repeats/1", loss=3.1), put("a/repeats/2", loss=3.1)  # alike, and still two
    put("b", GPTQ), put("b/repeats/1", GPTQ, 2.1)  # another shard
    put("d"), put("d/repeats/1", loss=3.2)  # another machine
    sources = [tmp_path / name for name in "abd"]
    merged = merge(sources, tmp_path / "c")
    found = [
        {record.label: record.loss for record in RunFolder(path).read_all().values()}
        for path in repeat_folders(tmp_path / "c")
    ]
    assert found == [{RTN: 3.1, GPTQ: 2.1}, {RTN: 3.1}, {RTN: 3.2}]
    assert (merged.repeats, merged.conflicts) == (3, [])


def test_a_repeat_without_a_record_is_no_repeat(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a")
    broken = RunFolder(tmp_path / "a" / "repeats" / "1").record_path("broken")
    broken.parent.mkdir(parents=True)
    broken.write_text("")
    merged = merge([tmp_path / "a"], tmp_path / "c")
    assert (merged.repeats, list(merged.aside)) == (0, [broken])


def test_a_probe_without_the_weights_it_read_is_told_of(put: Callable[..., Record], tmp_path: Path) -> None:
    key = {"probe": {}, "points": {"rtn": RTN.replace("/", "-"), "gptq": GPTQ.replace("/", "-")}}
    put("a", "llama-1m/mse/2b/ladder/s0", weights=None, key=key), put("a", RTN)
    assert merge([tmp_path / "a"], tmp_path / "c").pointless == {"llama-1m/mse/2b/ladder/s0": ["gptq"]}
    put("b", GPTQ)
    assert merge([tmp_path / "b"], tmp_path / "c").pointless == {}


def test_folders_that_cannot_be_merged(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("a/repeats/1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for sources, out, message in (
        (["a"], "a", "is the destination"),
        (["link"], "a", "is the destination"),
        (["a/repeats/1"], "a", "lie in each other"),
        (["a"], "a/inside", "lie in each other"),
        (["a", "link"], "c", "is given twice"),
        (["empty"], "c", "holds no record"),
        (["nowhere"], "c", "holds no record"),
    ):
        with pytest.raises(StoreError, match=message):
            merge([tmp_path / source for source in sources], tmp_path / out)
    assert not (tmp_path / "c").exists()


def test_another_process_in_the_destination_is_not_disturbed(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a")
    with RunFolder(tmp_path / "c").lock(), pytest.raises(StoreError, match=f"in use by process {os.getpid()} "):
        merge([tmp_path / "a"], tmp_path / "c")


KILLED = """
import os, pathlib, signal, sys
from qbench import atomic
from qbench.store import merge
left, real = int(sys.argv[3]), atomic.write_bytes
def write_bytes(path, data):
    global left
    if not str(path).endswith(".holder.json"):
        if left == 0:
            # Half a file is there, as when a machine loses power in the middle of it.
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f".{path.name}.half.tmp").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    real(path, data)
atomic.write_bytes = write_bytes
merge.merge([pathlib.Path(part) for part in sys.argv[1].split(",")], pathlib.Path(sys.argv[2]))
"""


def test_a_merge_that_is_killed_anywhere_goes_on(put: Callable[..., Record], tmp_path: Path) -> None:
    put("a"), put("a", FP), put("b", GPTQ), put("a/repeats/1", loss=3.1), put("b/repeats/1", GPTQ, 3.1)
    sources = [tmp_path / "a", tmp_path / "b"]
    merge(sources, tmp_path / "whole")
    wanted = files(tmp_path / "whole")
    ended = False
    for instant in range(20):
        target = tmp_path / f"c{instant}"
        command = [sys.executable, "-c", KILLED, ",".join(map(str, sources)), str(target), str(instant)]
        code = subprocess.run(command, check=False).returncode
        ended = code == 0
        if ended:
            break
        assert code == -signal.SIGKILL
        for name, content in files(target).items():
            assert name.endswith((".tmp", ".holder.json")) or content == wanted[name]
        merge(sources, target)
        assert files(target) == wanted
    assert ended and instant >= 8


def test_what_is_a_difference(make_record: MakeRecord) -> None:
    nan = make_record(metrics={"loss/blocks128": float("nan")})
    assert differences(nan, nan) == differences(make_record(), make_record(started="x", environment={"a": 1})) == []
    documents = [DocumentLosses(document="d", tokens=2, loss_sum=1.0)]
    assert [one.what for one in differences(make_record(), make_record(documents=documents))] == ["documents"]
    assert differences(make_record(), make_record(traces={"train_loss": [1.0]})) == [
        Difference("traces", "none", "1 of them")
    ]
    assert differences(make_record(), make_record(metrics={"loss/blocks128": 3.0})) == [
        Difference("perplexity/blocks128", "20.0", "-")
    ]
    assert [one.what for one in differences(make_record(), make_record(effective_bits=2.0))] == ["effective_bits"]
    assert len(differences(make_record(), make_record(layers=[]))) == 1

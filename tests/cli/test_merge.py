"""`qbench run --shard` on two machines, as it were, and `qbench merge` of what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.store.folder import RunFolder
from qbench.store.same_result import differences

SUITE = """\
name: toy_suite
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [4, 2]
  methods: [rtn, gptq]
  seeds: 2
metrics: [loss]
"""
RUN = ("run", "--suite", "toy_suite.yaml", "--device", "cpu", "--jobs", "1")


@pytest.mark.slow
def test_two_shards_are_the_suite(toys: ModuleType, call: Any) -> None:
    Path("toy_suite.yaml").write_text(SUITE)
    planned = json.loads(call("plan", "--suite", "toy_suite.yaml", "--json").out)["run"]
    whole = call(*RUN, "--out", "whole", "--json")
    assert whole.code == 0, whole.err
    for shard in ("1/2", "2/2"):
        said = call(*RUN, "--shard", shard, "--out", f"shard{shard[0]}", "--json")
        assert said.code == 0, said.err
        # The leaderboard is of its own cells: nothing is missing from it.
        assert json.loads(said.out)["leaderboard"]["counts"] == {"expected": 5, "ok": 5}
        assert len(json.loads(call("plan", "-s", "toy_suite.yaml", "--shard", shard, "--json").out)["run"]) == 5
    said = call("merge", "shard1", "shard2", "--out", "merged")
    assert (said.code, said.err) == (0, "")
    assert said.out == "merged: 10 records copied, 0 there already, 0 more of the same result, " + (
        "0 failed ones that another has, 0 repeats\n"
    )
    one, other = (RunFolder(Path(name)).read_all() for name in ("whole", "merged"))
    assert set(one) == set(other) == {cell["cell_id"] for cell in planned}
    for cell_id, record in one.items():
        assert differences(record, other[cell_id]) == []
        places = [RunFolder(Path(name)).weights_path(cell_id) for name in ("whole", "merged")]
        assert places[0].exists() == places[1].exists() == (record.axes["quantizer"] is not None)
        assert not places[0].exists() or places[0].read_bytes() == places[1].read_bytes()
    again = call(*RUN, "--out", "merged", "--json")
    assert again.err.startswith("toy_suite: 0 cells to run, 10 from the records in merged")
    assert json.loads(again.out)["leaderboard"]["counts"] == {"expected": 10, "ok": 10}


def test_a_conflict_is_shown(stored: Path, call: Any) -> None:
    import shutil

    shutil.copytree("results/runs/tiny", "one")
    shutil.copytree("results/runs/tiny", "two")
    folder = RunFolder(Path("two"))
    record = next(one for one in folder.read_all().values() if one.axes["quantizer"] is not None)
    changed = {"metrics": record.metrics | {record.loss_key: 1.5}, "environment": record.environment | {"threads": 99}}
    folder.write(record.model_copy(update=changed))
    said = call("merge", "one", "two", "--out", "three")
    assert said.code == 1
    assert said.out.startswith("three: 4 records copied, 0 there already, 4 more of the same result, ")
    for words in (
        record.label,
        f"{record.loss!r} (one)",
        "1.5 (two)",
        f"threads: {record.environment['threads']} / 99",
    ):
        assert words in said.out, words
    assert said.out.endswith(
        "1 cell has different results: nothing of them was written (--prefer first|last takes one)\n"
    )
    found = call("merge", "one", "two", "--out", "three", "--json")
    assert found.code == 1
    (conflict,) = json.loads(found.out)["conflicts"]
    assert conflict["label"] == record.label and conflict["differences"][0]["second"] == "1.5"
    assert call("merge", "one", "two", "--out", "three", "--prefer", "last").code == 0
    assert RunFolder(Path("three")).read_all() == folder.read_all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "nowhere", "--out", "x"), "qbench: nowhere holds no record (allowed: the folder of a run, "),
        (("merge", "results/runs/tiny", "--out", "results/runs/tiny"), "results/runs/tiny is the destination"),
        (("run", "-s", "tiny.yaml", "--shard", "3/2"), "qbench: --shard: given '3/2' (allowed: i/n, the i-th of n"),
        (("plan", "-s", "tiny.yaml", "--shard", "0/1"), "qbench: --shard: given '0/1' (allowed: i/n, the i-th of n"),
        (("plan", "-s", "tiny.yaml", "--shard", "3/3"), "qbench: --shard 3/3: that part has no cells: there are fewer"),
    ],
)
def test_what_is_refused(stored: Path, call: Any, arguments: tuple[str, ...], message: str) -> None:
    said = call(*arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err and len(said.err.splitlines()) == 1

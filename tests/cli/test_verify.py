"""`qbench verify`: a stored run is run again, and what was changed in it is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

RUN = Path("results/runs/tiny")


def files() -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in RUN.rglob("*") if path.is_file()}


def spoil(method: str, **changes: Any) -> str:
    """Change a stored record, and return its label."""
    for path in sorted((RUN / "records").glob("*.json")):
        data = json.loads(path.read_text())
        if data["axes"]["method"] == method and data["axes"]["bits"] in (2, None):
            for name, value in changes.items():
                data[name] = value(data[name]) if callable(value) else value
            path.write_text(json.dumps(data))
            return str(data["axes"]["method"])
    raise AssertionError(method)


def test_what_was_stored_is_what_comes_out(stored: Path, call: Any) -> None:
    before = files()
    said = call("verify", "tiny.yaml", "--sample", "2", "--device", "cpu", "--json")
    found = json.loads(said.out)
    assert said.code == 0, said.err
    assert (found["sound"], found["drawn"], found["of"]) == (True, 2, 5)
    assert {one["outcome"] for one in found["cells"]} == {"same bytes"}
    assert files() == before


def test_a_loss_that_was_changed_by_a_bit_is_found(stored: Path, call: Any) -> None:
    spoil("rtn", metrics=lambda old: {**old, "loss/blocks128": old["loss/blocks128"] + 2**-50})
    before = files()
    said = call(
        "verify", RUN, "--suite", "tiny.yaml", "--sample", "all", "--only", "method=rtn,bits=2", "--device", "cpu"
    )
    assert said.code == 1, said.err
    assert "differs" in said.out
    assert "loss/blocks128" in said.out
    assert "2 cells run again: 1 differs, 1 same bytes" in said.out
    assert files() == before


def test_on_other_ground_there_is_a_bound_and_it_is_said(stored: Path, call: Any) -> None:
    def elsewhere(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "cpu_capability": "another"}

    for method, by in (("rtn", 0.01), ("fp", 0.03)):
        spoil(
            method,
            environment=elsewhere,
            metrics=lambda old, by=by: {**old, "loss/blocks128": old["loss/blocks128"] + by},
            documents=lambda old, by=by: [{**one, "loss_sum": one["loss_sum"] + by * one["tokens"]} for one in old],
        )
    said = call("verify", "tiny.yaml", "--sample", "all", "--only", "method=rtn,bits=2", "--device", "cpu")
    assert said.code == 1
    assert "within bound" in said.out and "|dL| .010 <= .020" in said.out
    assert "|dL| .030 > .020" in said.out
    assert "other ground: cpu_capability another -> " in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny.yaml", "--sample", "none"), "--sample 'none' is no number of cells (allowed: 1 or more, or all)"),
        (("tiny.yaml", "--sample", "0"), "--sample '0' is no number of cells (allowed: 1 or more, or all)"),
        (("tiny.yaml", "--suite", "smoke"), "'tiny.yaml' is no folder: --suite is for a folder of records"),
        ((RUN, "--out", "x"), f"{RUN} is a folder of records already: leave out --out"),
        ((RUN,), f"{RUN} holds records of tiny: say --suite, a shipped suite or its file"),
        (("nothing",), "nothing holds no records: name a folder that `qbench run` wrote, or a suite"),
    ],
)
def test_wrong_calls_are_one_line(stored: Path, call: Any, arguments: tuple[object, ...], said: str) -> None:
    Path("nothing").mkdir()
    found = call("verify", *arguments)
    assert (found.code, found.out) == (2, "")
    assert found.err == f"qbench: {said}\n"


def test_a_folder_without_a_record(stored: Path, call: Any) -> None:
    shutil.rmtree(RUN / "records")
    found = call("verify", "tiny.yaml", "--sample", "all")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        f"qbench: {RUN} holds no record of tiny as it is now: `qbench run --suite tiny.yaml` makes them, "
        "`qbench why CELL --suite tiny.yaml` says why a record does not count\n"
    )


def test_a_folder_without_a_sound_record_is_red(stored: Path, call: Any) -> None:
    for path in (RUN / "records").glob("*.json"):
        os.truncate(path, 100)
    found = call("verify", "tiny.yaml", "--sample", "1")
    assert found.code == 1
    assert found.err == f"tiny: 0 of 0 sound cells in {RUN} are run again\n"
    assert found.out.count(": corrupt: ") == 5
    assert found.out.endswith("5 stored cells are not as they were written\n")


ONLY = ("--only", "method=rtn,bits=2", "--device", "cpu", "--jobs", "1")


def paths(method: str) -> tuple[Path, Path]:
    """Return the record of 2 bits by a method (or of full precision), and where its weights are."""
    for path in (RUN / "records").glob("*.json"):
        axes = json.loads(path.read_text())["axes"]
        if axes["method"].startswith(method) and axes["bits"] in (2, None):
            return path, RUN / "weights" / f"{path.stem}.safetensors"
    raise AssertionError(method)


def damage_weights(record: Path, weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def delete_weights(record: Path, weights: Path) -> None:
    weights.unlink()


def swap_weights(record: Path, weights: Path) -> None:
    shutil.copyfile(paths("ste_qat")[1], weights)


def truncate_record(record: Path, weights: Path) -> None:
    os.truncate(record, record.stat().st_size // 2)


def empty_record(record: Path, weights: Path) -> None:
    os.truncate(record, 0)


def edit_loss(record: Path, weights: Path) -> None:
    spoil("rtn", metrics=lambda old: {**old, "loss/blocks128": old["loss/blocks128"] - 1e-4})


@pytest.mark.parametrize(
    ("tamper", "state", "said"),
    [
        (damage_weights, "other weights", "has the hash"),
        (delete_weights, "without weights", "is not there"),
        (swap_weights, "other weights", "has the hash"),
        (truncate_record, "corrupt", "is no record: not JSON"),
        (empty_record, "corrupt", "is no record: not JSON"),
        (edit_loss, "contradicts itself", "tells of the loss"),
    ],
)
def test_a_stored_cell_that_was_tampered_with_is_red_though_it_is_not_drawn(
    stored: Path, call: Any, monkeypatch: pytest.MonkeyPatch, tamper: Any, state: str, said: str
) -> None:
    tamper(*paths("rtn"))
    # What is drawn here is full precision alone, and it is not what this is about.
    monkeypatch.setattr("qbench.cli.verify._run_again", lambda drawn, stored, *_: stored)
    before = files()
    found = json.loads((answer := call("verify", "tiny.yaml", "--sample", "1", *ONLY, "--json")).out)
    assert (answer.code, found["sound"], found["drawn"], found["of"]) == (1, False, 1, 1)
    (one,) = found["unsound"]
    assert (one["state"], one["label"].rpartition("absmax")[2]) == (state, "[per_channel]/2b/rtn/s0")
    assert said in one["reason"]
    told = call("verify", "tiny.yaml", "--sample", "1", *ONLY)
    assert told.code == 1
    assert (
        f"not sound: {one['label']}: {state}: {one['reason']}\n1 stored cells are not as they were written\n"
        in told.out
    )
    assert "1 same bytes" in told.out
    if state != "contradicts itself":  # which a run takes as it is
        assert one["reason"] in call("why", one["label"], "--suite", "tiny.yaml").out
    assert files() == before
    rest = call("verify", "tiny.yaml", "--only", "method=rtn,bits=4", "--device", "cpu")
    assert rest.code == 0, "a cell that was not asked for is none of its business"


def test_cells_without_a_record_are_named_and_not_red(stored: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.cli.verify._run_again", lambda drawn, stored, *_: stored)
    paths("fp")[0].unlink()
    said = call("verify", "tiny.yaml", "--sample", "all", *ONLY)
    assert said.code == 0
    assert "\n1 cells have no record: llama-1m[" in said.out and said.out.endswith("/fp/s0\n")
    found = json.loads(call("verify", "tiny.yaml", "--sample", "all", *ONLY, "--json").out)
    assert (found["sound"], found["of"], found["unsound"]) == (True, 1, [])
    assert [label.rpartition("/fp")[1] for label in found["no_record"]] == ["/fp"]


def test_cells_that_failed_are_told_and_files_of_no_cell_are_a_warning(
    stored: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbench.cli.verify._run_again", lambda drawn, stored, *_: stored)
    spoil("rtn", status="diverged", reason="NaN in layer 3")
    (RUN / "records" / f"{'0' * 64}.json").write_text("{")
    said = call("verify", "tiny.yaml", "--sample", "all", *ONLY)
    assert said.code == 0
    assert "1 stored cells have no result that could be compared, such as llama-1m[" in said.out
    assert said.out.endswith("/rtn/s0 (diverged: NaN in layer 3)\n")
    assert f"warning: {RUN}/records/{'0' * 64}.json is no record (not JSON" in said.err

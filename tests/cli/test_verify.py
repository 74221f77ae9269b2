"""`qbench verify`: a stored run is run again, and what was changed in it is found."""

from __future__ import annotations

import hashlib
import json
import os
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


def test_a_folder_without_a_sound_record(stored: Path, call: Any) -> None:
    for path in (RUN / "records").glob("*.json"):
        os.truncate(path, 100)
    found = call("verify", "tiny.yaml")
    assert found.code == 2
    assert found.err.startswith(
        f"qbench: {RUN} holds no sound record of tiny as it is now: `qbench run --suite tiny.yaml`"
    )

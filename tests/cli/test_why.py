"""`qbench why`: one cell, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

MODEL = "llama-1m[calibration_windows=8,evaluation_windows=8,passages=2,choices=4]"
CELL = f"{MODEL}/absmax[per_channel]/2b/rtn/s0"
RUN = Path("results/runs/tiny")


def test_a_hit_says_where(stored: Path, call: Any) -> None:
    said = call("why", CELL, "--suite", "tiny.yaml")
    assert (said.code, said.err) == (0, "")
    assert "is stored: results/runs/tiny/records/" in said.out
    found = json.loads(call("why", CELL, "--suite", "tiny.yaml", "--json").out)
    assert found["hit"] is True
    assert Path(found["record"]).exists()
    for text in (found["cell_id"], found["cell_id"][:6]):
        assert call("why", text, "-s", "tiny.yaml").out == said.out


def test_changed_options_are_named(stored: Path, call: Any) -> None:
    suite = Path("tiny.yaml")
    suite.write_text(suite.read_text().replace("evaluation_windows: 8", "evaluation_windows: 16"))
    said = call("why", CELL.replace("evaluation_windows=8", "evaluation_windows=16"), "--suite", "tiny.yaml")
    assert said.code == 0, said.err
    assert "holds no record of this label; the nearest are" in said.out
    assert "    model.options.evaluation_windows: 8 -> 16\n" in said.out


def test_a_record_of_another_id_is_known_by_it(stored: Path, call: Any) -> None:
    for path in (RUN / "records").glob("*.json"):
        data = json.loads(path.read_text())
        if data["axes"]["method"] == "rtn" and data["axes"]["bits"] == 2:
            data["cell_id"], data["key"]["seed"] = "0" * 64, 7
            path.unlink()
            path.with_name("0" * 64 + ".json").write_text(json.dumps(data))
    said = call("why", "000000", "--suite", "tiny.yaml")
    assert said.code == 0, said.err
    assert said.out.startswith(CELL)
    assert "  record 000000000000, run " in said.out
    assert "    seed: 7 -> 0\n" in said.out


def test_of_many_old_records_the_newest_is_shown_and_the_others_are_counted(stored: Path, call: Any) -> None:
    for path in (RUN / "records").glob("*.json"):
        data = json.loads(path.read_text())
        if data["axes"]["method"] == "rtn" and data["axes"]["bits"] == 2:
            own, text = path, path.read_text()
    for seed in range(2, 6):
        old = json.loads(text)
        old["cell_id"], old["key"]["seed"], old["ended"] = f"{seed}" * 64, seed, f"2026-01-0{seed}T00:00:00"
        own.with_name(f"{old['cell_id']}.json").write_text(json.dumps(old))
    arguments = ("why", CELL, "--suite", "tiny.yaml")
    hit = call(*arguments).out
    assert hit.count("\n") == 2 and "is stored" in hit
    assert call(*arguments, "--all").out.count("is of another key") == 4
    own.unlink()
    said = call(*arguments).out
    assert said.splitlines()[1:] == [
        "  record 555555555555, run 2026-01-05T00:00:00, is of another key:",
        "    seed: 5 -> 0",
        "  and 3 more records of this label, of other keys (--all shows them)",
    ]
    asked = call("why", "333333", "--suite", "tiny.yaml").out
    assert "    seed: 3 -> 0\n  and 3 more records" in asked and asked.count("seed:") == 1
    everything = call(*arguments, "--all").out
    assert [line for line in everything.splitlines() if "seed:" in line] == [
        f"    seed: {n} -> 0" for n in (5, 4, 3, 2)
    ]
    assert "more records" not in everything
    assert len(json.loads(call(*arguments, "--json").out)["found"]) == 4
    own.write_text("{")
    said = call(*arguments).out
    assert "does not count" in said and said.endswith(
        "and 4 more records of this label, of other keys (--all shows them)\n"
    )


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (CELL.replace("rtn", "rtm"), f"the suite has no cell {CELL.replace('rtn', 'rtm')!r}: did you mean {CELL!r}"),
        ("abc", "'abc' is too short for an id (allowed: 6 letters or more)"),
        ("abcdef123456", "the suite has no cell 'abcdef123456' ("),
        (
            f"{MODEL}/absmax[per_channel]/4b/ste_qat[steps=2,batch_size=2]/s0",
            "is left out by the suite: nothing to recover",
        ),
    ],
)
def test_wrong_names(stored: Path, call: Any, cell: str, said: str) -> None:
    found = call("why", cell, "--suite", "tiny.yaml")
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert found.err.count("\n") == 1

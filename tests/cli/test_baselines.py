"""Bless, compare, and what a run says at its end: on the records of a real run."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from qbench.store.folder import RunFolder
from qbench.store.record import Record

SUITE = ("--suite", "tiny.yaml")
RUN = Path("results/runs/tiny")
BASELINE = Path("results/baselines/tiny.json")


def record_of(method: str, bits: int | None = None) -> Record:
    held = RunFolder(RUN).read_all().values()
    return next(one for one in held if one.axes["method"] == method and one.axes["bits"] == bits)


def made_worse(record: Record, by: float) -> Record:
    """Return a record whose loss is larger by so many nats a token, on each document."""
    documents = [row.model_copy(update={"loss_sum": row.loss_sum + by * row.tokens}) for row in record.documents]
    metrics = {**record.metrics, "loss/blocks128": (record.loss or 0.0) + by}
    return record.model_copy(update={"documents": documents, "metrics": metrics})


@pytest.fixture
def blessed(stored: Path, call: Any) -> Path:
    assert call("bless", *SUITE, "--yes").code == 0
    return stored


def test_bless_then_compare(stored: Path, call: Any) -> None:
    said = call("bless", *SUITE, "--yes")
    assert said.code == 0
    assert said.out.startswith("tiny on cpu ") and "first baseline, 5 new" in said.out
    assert f"wrote {BASELINE}: 5 cells on cpu " in said.out
    said = call("compare", *SUITE, "--all")
    assert said.code == 0
    assert said.out.count("same  ") >= 5
    found = json.loads(call("compare", *SUITE, "--json").out)
    assert (found["regressed"], found["passed"], found["counts"]) == (False, True, {"same": 5})
    assert all(row["identical"] for row in found["rows"] if "b/" in row["label"])
    assert all(row["interval"] == [0, 0] for row in found["rows"]), "paired, document by document"
    assert call("compare", *SUITE, "--exact").code == 0
    assert call("run", *SUITE, "--device", "cpu").code == 0
    assert call("bless", *SUITE).out.startswith("nothing to bless: ")


def test_history_keeps_why_and_when(blessed: Path, call: Any) -> None:
    (device,) = json.loads(BASELINE.read_text())["devices"].values()
    (entry,) = device["history"]
    assert (entry["reason"], entry["counts"]) == ("first blessing", {"new": 5})
    assert entry["date"] == datetime.now(UTC).date().isoformat()


def test_a_cell_that_became_worse_is_red_everywhere(blessed: Path, call: Any) -> None:
    worse = made_worse(record_of("rtn", 2), 0.05)
    RunFolder(RUN).write(worse)
    said = call("compare", *SUITE)
    assert said.code == 1
    assert worse.label in "".join(said.out.split()) and "+.0500" in said.out
    found = json.loads(call("compare", *SUITE, "--format", "json").out)
    assert found["counts"] == {"worse": 1, "same": 4}
    assert call("compare", *SUITE, "--only", "bits=4").code == 0
    again = call("run", *SUITE, "--device", "cpu")
    assert again.code == 1 and "regressed (1 worse" in again.out
    json_again = json.loads(call("run", *SUITE, "--device", "cpu", "--json").out)["comparison"]
    assert json_again["counts"] == {"worse": 1, "same": 4} and json_again["regressed"] and not json_again["passed"]


def test_an_unexplained_improvement_is_red_until_it_is_blessed(blessed: Path, call: Any) -> None:
    RunFolder(RUN).write(made_worse(record_of("rtn", 2), -0.05))
    said = call("compare", *SUITE)
    assert said.code == 1 and "changed, and not blessed" in said.out
    assert "to bless it: qbench bless --suite tiny.yaml" in said.out
    assert call("run", *SUITE, "--device", "cpu").code == 1
    before = BASELINE.read_bytes()
    refused = call("bless", *SUITE, "--yes")
    assert refused.code == 2 and "say why with --reason" in refused.err
    assert "-.0500" in refused.out, "the diff is shown all the same"
    for reason in ("", "  "):
        assert call("bless", *SUITE, "--yes", "--reason", reason).code == 2
    asked = call("bless", *SUITE, "--reason", "better scales")
    assert asked.code == 2 and "no terminal to ask on" in asked.err
    dry = call("bless", *SUITE, "--dry-run")
    assert dry.code == 0 and "needs a --reason" in dry.out and "1 better" in dry.out
    assert BASELINE.read_bytes() == before, "not a byte of it so far"
    done = call("bless", *SUITE, "--reason", "better scales", "--yes")
    assert done.code == 0 and f"replaced {BASELINE}: 5 cells on cpu " in done.out
    assert call("compare", *SUITE).code == 0


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 1)])
def test_on_a_terminal_it_asks(
    stored: Path, call: Any, monkeypatch: pytest.MonkeyPatch, answer: bool, code: int
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda _: answer)
    assert call("bless", *SUITE).code == code
    assert BASELINE.exists() is answer


def test_a_missing_cell_is_red_and_is_not_blessed(blessed: Path, call: Any) -> None:
    gone = record_of("rtn", 2)
    RunFolder(RUN).record_path(gone.cell_id).unlink()
    assert call("compare", *SUITE).code == 1
    said = call("bless", *SUITE, "--yes")
    assert said.code == 2
    assert (
        said.err.startswith("qbench: not blessed, because of 1 of 5 cells: ") and f"{gone.label} (missing)" in said.err
    )
    assert call("bless", *SUITE, "--accept", gone.label, "--yes").code == 2, "accepting wants a reason"
    said = call("bless", *SUITE, "--accept", gone.label, "--yes", "--reason", "no time for it")
    assert said.code == 0 and f"expectedtofailfromnowon:{gone.label}(missing)" in "".join(said.out.split())
    said = call("compare", *SUITE)
    assert said.code == 0 and "no time for it" in said.out


def test_a_part_is_blessed_and_the_rest_stays(blessed: Path, call: Any) -> None:
    for bits in (2, 4):
        RunFolder(RUN).write(made_worse(record_of("rtn", bits), 0.05))
    said = call("bless", *SUITE, "--only", "bits=4", "--reason", "why not", "--yes")
    assert said.code == 0 and "1 worse" in said.out
    found = json.loads(call("compare", *SUITE, "--json").out)
    assert [row["label"] for row in found["rows"] if row["red"]] == [record_of("rtn", 2).label]


def test_repeats_are_blessed_with_the_run(stored: Path, call: Any) -> None:
    for number, by in ((1, 0.001), (2, -0.001)):
        (RUN / "repeats" / str(number)).mkdir(parents=True)
        shutil.copytree(RUN / "records", RUN / "repeats" / str(number) / "records")
        RunFolder(RUN / "repeats" / str(number)).write(made_worse(record_of("rtn", 2), by))
    said = call("bless", *SUITE, "--yes")
    assert said.code == 0 and "10 repeats" in said.out
    labels = record_of("rtn", 2).label, record_of("rtn", 4).label

    def tolerances() -> list[float]:
        rows = json.loads(call("compare", *SUITE, "--json").out)["rows"]
        return [{row["label"]: row["tolerance"] for row in rows}[label] for label in labels]

    assert tolerances() == [0.002, 0.002], "the very ground that was blessed"
    for record in RunFolder(RUN).read_all().values():
        elsewhere = {**record.environment, "threads": 99}
        RunFolder(RUN).write(record.model_copy(update={"environment": elsewhere}))
    assert tolerances() == [pytest.approx(31.599 * 2**0.5 * 0.001, rel=1e-3), 0.01]


def test_each_class_of_device_has_a_baseline_of_its_own(blessed: Path, call: Any) -> None:
    first = json.loads(BASELINE.read_text())["devices"]
    for record in RunFolder(RUN).read_all().values():
        ground = {**record.environment, "device": "cuda", "device_name": "NVIDIA H100"}
        RunFolder(RUN).write(record.model_copy(update={"environment": ground}))
    said = call("compare", *SUITE)
    assert said.code == 2
    assert f"{BASELINE} has no baseline of cuda NVIDIA H100" in said.err and "--against 'cpu " in said.err
    again = call("run", *SUITE, "--device", "cpu")
    assert again.code == 0 and "has no baseline of cuda NVIDIA H100" in again.out
    (cpu,) = first
    across = call("compare", *SUITE, "--against", cpu)
    assert across.code == 0 and "device: baseline cpu, now cuda" in across.out
    wrong = call("compare", *SUITE, "--against", "cpu x8")
    assert wrong.code == 2 and f"did you mean '{cpu}'" in wrong.err
    assert call("bless", *SUITE, "--yes").code == 0
    both = json.loads(BASELINE.read_text())["devices"]
    assert set(both) == {cpu, "cuda NVIDIA H100"} and both[cpu] == first[cpu]
    assert call("compare", *SUITE).code == 0
    one = record_of("rtn", 2)
    RunFolder(RUN).write(one.model_copy(update={"environment": {**one.environment, "device": "cpu"}}))
    assert "several classes of device" in call("compare", *SUITE).err
    assert "several classes of device" in call("bless", *SUITE, "--yes").err


def test_a_run_tells_of_records_from_several_classes_of_device_at_its_end(blessed: Path, call: Any) -> None:
    one = record_of("rtn", 2)
    RunFolder(RUN).write(one.model_copy(update={"environment": {**one.environment, "device": "cuda"}}))
    said = call("run", *SUITE, "--device", "cpu")
    assert said.code == 2
    assert "llama-1m" in said.out and "not compared: records or baseline are of several classes" in said.out
    assert said.err.rstrip().endswith("say --against which")


def test_an_expected_failure_does_not_fail_a_run(blessed: Path, call: Any) -> None:
    layer = record_of("rtn", 2).layers[0].model_copy(update={"fallback": "rounded to nearest: a dead layer"})
    fallen = record_of("rtn", 2).model_copy(update={"layers": [layer]})
    RunFolder(RUN).write(fallen)
    assert call("run", *SUITE, "--device", "cpu").code == 1
    blessing = ("bless", *SUITE, "--accept", fallen.label, "--reason", "one layer is dead", "--yes")
    assert call(*blessing).code == 0
    said = call("run", *SUITE, "--device", "cpu")
    assert said.code == 0 and "1 expected" in said.out
    RunFolder(RUN).write(made_worse(fallen, 0.05))
    assert call("run", *SUITE, "--device", "cpu").code == 1


def test_forms(blessed: Path, call: Any) -> None:
    RunFolder(RUN).write(made_worse(record_of("rtn", 2), 0.05))
    said = call("compare", *SUITE, "--format", "markdown", "--only", "bits=2|4", "--comment", "out/comment.md")
    assert said.code == 1 and said.out.startswith("<!-- qbench: tiny -->\n## tiny against its baseline")
    assert "qbench run --suite tiny.yaml --only 'bits=2|4'\n" in said.out
    assert said.out == Path("out/comment.md").read_text() + "\n" and said.err == "wrote out/comment.md\n"
    cases = minidom.parseString(call("compare", *SUITE, "--format", "junit").out).getElementsByTagName("testcase")
    assert len(cases) == 5 and len(cases[0].getElementsByTagName("failure")) == 1
    said = call("compare", *SUITE, "--json", "--format", "junit")
    assert said.code == 2 and "--json and --format junit: say one of them" in said.err
    assert call("compare", *SUITE, "--format", "html").code == 2


def test_the_summary_of_a_github_job_gets_the_markdown(
    blessed: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = Path("summary.md")
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert call("compare", *SUITE).code == 0
    assert summary.read_text().startswith("before\n<!-- qbench: tiny -->\n")
    assert call("run", *SUITE, "--device", "cpu").code == 0
    assert summary.read_text().count("<!-- qbench: tiny -->") == 2
    assert "GITHUB_STEP_SUMMARY" in call("compare", "--help").out


def test_a_baseline_of_version_1_is_compared_with(stored: Path, call: Any) -> None:
    held = list(RunFolder(RUN).read_all().values())
    cells = {
        record.label: {
            "axes": record.axes, "status": "ok", "metrics": record.metrics, "weights_sha256": record.weights_sha256
        }
        for record in held
    }  # fmt: skip
    ground = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in held[0].environment.items()
    }
    old = {"schema_version": 1, "suite": "tiny", "qbench_version": "0.1.0", "environment": ground, "cells": cells}
    BASELINE.parent.mkdir(parents=True)
    BASELINE.write_text(json.dumps(old))
    assert call("compare", *SUITE, "--exact").code == 0
    RunFolder(RUN).write(made_worse(record_of("rtn", 2), 0.0021))
    said = call("compare", *SUITE)
    assert said.code == 1 and "unpaired" in said.out


def edited(change: Any) -> None:
    data = json.loads(BASELINE.read_text())
    change(data)
    BASELINE.write_text(json.dumps(data))


def test_a_baseline_that_was_edited_by_hand_is_not_compared_with(blessed: Path, call: Any) -> None:
    def loosen(data: dict[str, Any]) -> None:
        (part,) = data["devices"].values()
        part["cells"][record_of("rtn", 2).label]["repeats"] = [0.0, 3.0]

    before = BASELINE.read_text()
    edited(loosen)
    for verb in ("compare", "run"):
        said = call(verb, *SUITE)
        assert said.code == 2 and "was edited since: restore the file, or bless again" in said.err, verb
    said = call("bless", *SUITE, "--yes")
    assert said.code == 2 and "--reason" in said.err and "edited by hand" in said.out
    assert call("bless", *SUITE, "--yes", "--reason", "the edit is taken back").code == 0
    assert call("compare", *SUITE).code == 0
    # Formatting alone is no edit.
    BASELINE.write_text(json.dumps(json.loads(before), indent=4))
    assert call("compare", *SUITE).code == 0


def test_the_baseline_of_another_suite_is_refused(blessed: Path, call: Any) -> None:
    edited(lambda data: data.update(suite="other"))
    said = call("compare", *SUITE)
    assert said.code == 2 and "is the baseline of 'other' (allowed: 'tiny')" in said.err


def test_a_baseline_without_a_class_of_device_is_none(blessed: Path, call: Any) -> None:
    edited(lambda data: data.update(devices={}))
    said = call("compare", *SUITE)
    assert said.code == 2 and "no baseline at" in said.err


def test_cells_that_the_suite_has_dropped_are_red_until_they_are_blessed(blessed: Path, call: Any) -> None:
    suite = Path("tiny.yaml")
    head, _, tail = suite.read_text().partition("exclude:")
    suite.write_text(head.replace("bits: [4, 2]", "bits: [2]") + tail[tail.index("metrics:") :])
    said = call("compare", *SUITE)
    assert said.code == 1
    assert "the suite has no such cell any more" in " ".join(said.out.split())
    assert call("compare", *SUITE, "--only", "bits=2").code == 0, "a part was asked for"
    assert call("bless", *SUITE, "--yes").code == 2, "that needs a reason"
    assert call("bless", *SUITE, "--yes", "--reason", "4 bits are not in question").code == 0
    assert call("compare", *SUITE).code == 0


def test_a_run_of_new_cells_alone_is_not_green(blessed: Path, call: Any) -> None:
    def forget(data: dict[str, Any]) -> None:
        (part,) = data["devices"].values()
        part["cells"], part["history"] = {}, []

    edited(forget)
    said = call("compare", *SUITE)
    assert said.code == 1 and "nothing was compared (5 new" in said.out

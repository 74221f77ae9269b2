"""Every verb on one small stored run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qbench
from qbench.cli import app
from qbench.registry import METHODS, MODELS, QUANTIZERS
from qbench.store.folder import RunFolder
from qbench.store.summary import seconds_of
from qbench.suite.load import list_suites
from qbench.tasks import assets

VERBS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)  # type: ignore[union-attr]
SUITE = ("--suite", "tiny.yaml")


def test_the_verbs_there_are() -> None:
    assert {"run", "plan", "list", "validate", "report", "compare", "bless", "fetch", "pretrain"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_has_an_example(call: Any, verb: str, flag: str) -> None:
    said = call(verb, flag)
    assert (said.code, said.err) == (0, "")
    assert f"Usage: qbench {verb}" in said.out
    assert "Example" in said.out and f"qbench {verb}" in said.out.partition("Example")[2]


def test_help_and_version_of_the_whole(call: Any) -> None:
    said = call("--help")
    assert said.code == 0
    assert all(verb in said.out for verb in VERBS) and "Examples:" in said.out
    assert call("--version") == type(said)(0, f"{qbench.__version__}\n", "")


def test_validate(stored: Path, call: Any) -> None:
    said = call("validate", "tiny.yaml")
    assert said.code == 0
    assert said.out.splitlines() == [
        "tiny: sound: 5 cells (1 of them full precision), 1 skipped",
        "  skipped 1: nothing to recover at 4 bits",
    ]
    found = json.loads(call("validate", "tiny.yaml", "--json").out)
    assert found == {"suite": "tiny", "cells": 5, "full_precision": 1, "probes": 0, "skipped": 1}


@pytest.mark.parametrize("suite", sorted(list_suites()))
def test_every_shipped_suite_is_sound_and_can_be_planned(call: Any, suite: str) -> None:
    said = call("validate", suite)
    if "is not in the cache" in said.err:  # large data, which are fetched by name
        assert said.code == 2 and "run `qbench fetch " in said.err
        pytest.skip(said.err.strip())
    assert said.code == 0
    assert call("plan", "--suite", suite).code == 0


def test_plan_of_a_fresh_folder(stored: Path, call: Any) -> None:
    said = call("plan", *SUITE, "--out", "nothing")
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["run", "run", "run", "run", "run", "skip"]
    assert lines[0].endswith("/fp/s0")
    assert lines[6:] == ["5 cells to run, 0 stored, 1 skipped"]
    assert not Path("nothing").exists()


def test_plan_of_a_stored_run(stored: Path, call: Any) -> None:
    said = call("plan", *SUITE)
    assert said.out.splitlines()[:2] == [
        "skip  1 cells: nothing to recover at 4 bits",
        "0 cells to run, 5 stored, 1 skipped",
    ]
    found = json.loads(call("plan", *SUITE, "--json").out)
    assert found["run"] == [] and len(found["stored"]) == 5 and found["estimated_cell_seconds"] == 0
    assert found["skipped"][0]["reason"] == "nothing to recover at 4 bits"


def test_plan_estimates_by_what_is_stored(stored: Path, call: Any) -> None:
    folder = RunFolder(Path("results/runs/tiny"))
    records = folder.read_all()
    gone = next(record for record in records.values() if record.axes["method"] == "rtn" and record.axes["bits"] == 2)
    folder.record_path(gone.cell_id).unlink()
    found = json.loads(call("plan", *SUITE, "--json").out)
    assert [one["label"] for one in found["run"]] == [gone.label]
    twin = next(record for record in records.values() if record.axes["method"] == "rtn" and record.axes["bits"] == 4)
    assert found["estimated_cell_seconds"] == pytest.approx(seconds_of(twin))
    assert json.loads(call("plan", *SUITE, "--json", "--seeds", "2").out)["estimated_cell_seconds"] > 0


def test_list(call: Any) -> None:
    said = call("list")
    assert said.code == 0
    for name in [*MODELS.names(), *METHODS.names(), *QUANTIZERS.names(), *list_suites(), *assets.manifest()]:
        assert name in said.out, name
    found = json.loads(call("list", "methods", "--json").out)
    assert set(found) == {"methods"} and set(found["methods"]) == set(METHODS.names())
    assert all(row["about"] and "\n" not in row["about"] for row in found["methods"].values())
    assert {row["origin"] for row in found["methods"].values()} == {"built in"}
    licences = json.loads(call("list", "assets", "--json").out)["assets"]
    assert all(asset.licence in licences[name]["about"] for name, asset in assets.manifest().items())


def test_list_tells_what_models_measure_and_on_what(call: Any) -> None:
    found = json.loads(call("list", "models", "--json").out)["models"]
    language, images = ["loss", "bits_per_byte", "next_sentence"], ["loss", "accuracy"]
    language += ["word_perplexity", "byte_perplexity", "lm_eval:TASK"]
    expected = {
        "llama-1m": (language, "three_texts"),
        "causal_lm": (language, "its option text"),
        "mlp-digits": (images, "digits"),
        "resnet8-mnist": (images, "mnist_5k"),
        "torchvision": (images, "its option images"),
    }
    assert {name: (found[name]["metrics"], found[name]["data"]) for name in expected} == expected
    assert all(row["about"] for row in found.values())
    line = next(line for line in call("list", "models").out.splitlines() if line.startswith("mlp-digits"))
    assert "built in  loss, accuracy" in line and "  digits  " in line and found["mlp-digits"]["about"] in line


def test_a_model_that_cannot_be_loaded_hides_no_other(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_references", {**MODELS._references, "gone": "no_such_module:X"})
    said = call("list", "models")
    assert (said.code, said.err) == (0, "")
    assert "llama-1m" in said.out
    assert "cannot be used: model 'gone' cannot be loaded from no_such_module:X" in said.out


def test_a_plugin_that_cannot_be_loaded_hides_no_other(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_references", {**METHODS._references, "gone": "no_such_module:X:fire:"})
    said = call("list", "methods")
    assert (said.code, said.err) == (0, "")
    assert "rtn" in said.out
    assert "cannot be used: method 'gone' cannot be loaded from no_such_module:X:fire:" in said.out


def test_report(stored: Path, call: Any) -> None:
    said = call("report", *SUITE)
    assert (said.code, said.err) == (0, "")
    assert call("run", *SUITE, "--device", "cpu").out.startswith(said.out)
    found = json.loads(call("report", *SUITE, "--json").out)
    assert found["counts"] == {"expected": 6, "ok": 5, "skipped": 1}
    written = call("report", *SUITE, "--write")
    assert (written.out, written.err) == ("", "wrote results/tables/tiny.md\n")
    assert Path("results/tables/tiny.md").read_text().startswith("# tiny\n")


def test_report_shows_what_is_missing(stored: Path, call: Any) -> None:
    folder = RunFolder(Path("results/runs/tiny"))
    gone = next(record for record in folder.read_all().values() if record.axes["method"] == "rtn")
    folder.record_path(gone.cell_id).unlink()
    assert call("report", *SUITE).out.startswith("tiny: 6 cells: 4 ok, 1 missing, 1 skipped")


def test_records_of_other_options_are_left_aside(stored: Path, call: Any) -> None:
    text = Path("tiny.yaml").read_text()
    Path("tiny.yaml").write_text(text.replace("steps: 2", "steps: 3"))
    said = call("report", *SUITE)
    assert said.code == 0
    assert said.err == "2 records of older code, data or options are left aside\n"
    Path("tiny.yaml").write_text(text.replace("choices: 4", "choices: 5"))
    said = call("report", *SUITE)
    assert said.code == 2
    assert said.err == (
        "qbench: results/runs/tiny holds no record of tiny (5 others are there, 5 of them of older code, data or "
        "options): `qbench run --suite tiny.yaml`\n"
    )


def test_fetching_what_is_there(call: Any) -> None:
    said = call("fetch")
    assert said.code == 0
    plain = [name for name, asset in assets.manifest().items() if not asset.by_name]
    assert said.out == f"{len(plain)} assets are in {assets.cache_folder()}\n"
    found = json.loads(call("fetch", "shakespeare", "--json").out)
    assert found == {"assets": {"shakespeare": str(assets.asset_path("shakespeare"))}, "corpus": {}, "models": {}}


def test_a_table_is_of_the_whole_suite_or_not_written(stored: Path, call: Any) -> None:
    said = call("report", *SUITE, "--only", "bits=2", "--write")
    assert (said.code, said.err) == (
        2,
        "qbench: --write makes the table of the whole suite: leave out --only and --seeds\n",
    )
    folder = RunFolder(Path("results/runs/tiny"))
    gone = next(record for record in folder.read_all().values() if record.axes["method"] == "rtn")
    folder.record_path(gone.cell_id).unlink()
    said = call("report", *SUITE, "--write")
    assert (said.code, said.err) == (
        2,
        "qbench: 1 cells have no record: `qbench run --suite tiny.yaml` before --write\n",
    )
    assert not Path("results/tables/tiny.md").exists()


def test_a_file_of_the_user_is_not_overwritten_by_a_table(stored: Path, call: Any) -> None:
    own = Path("results/tables/tiny.md")
    own.parent.mkdir(parents=True)
    own.write_text("my notes")
    said = call("report", *SUITE, "--write")
    assert (said.code, own.read_text()) == (2, "my notes")
    own.unlink()
    assert call("report", *SUITE, "--write").code == 0
    assert call("report", *SUITE, "--write").code == 0


def test_cells_that_were_not_asked_for_are_not_called_stale(stored: Path, call: Any) -> None:
    assert call("report", *SUITE, "--only", "bits=2").err == ""


def test_an_out_folder_that_is_a_file_is_one_line(stored: Path, call: Any) -> None:
    said = call("run", *SUITE, "--out", "tiny.yaml")
    assert said.code == 2
    assert said.err.startswith("qbench: ") and said.err.count("\n") == 1


def test_weights_that_are_cut_short_are_made_again(stored: Path, call: Any) -> None:
    path = next((stored / "results" / "runs" / "tiny" / "weights").iterdir())
    path.write_bytes(path.read_bytes()[:50])
    assert "1 cells to run, 4 stored, 1 skipped" in call("plan", *SUITE).out


def test_a_stray_file_among_the_records_is_told_of_and_left_aside(stored: Path, call: Any) -> None:
    before = call("report", *SUITE)
    stray = stored / "results" / "runs" / "tiny" / "records" / "notes.json"
    stray.write_text("{}")
    after = call("report", *SUITE)
    assert (after.code, after.out) == (0, before.out)
    assert after.err.startswith("warning: results/runs/tiny/records/notes.json is no record (no schema_version)")
    assert stray.exists()


def test_weights_that_are_gone_are_made_again(stored: Path, call: Any) -> None:
    folder = RunFolder(Path("results/runs/tiny"))
    gone = next(record for record in folder.read_all().values() if record.axes["method"] == "rtn")
    folder.weights_path(gone.cell_id).unlink()
    assert "1 cells to run, 4 stored, 1 skipped" in call("plan", *SUITE).out

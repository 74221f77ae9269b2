"""`qbench report` and `qbench archive`: what a run left, in every form, and in one file for git."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from qbench.store.folder import RunFolder

RUN = "results/runs/tiny"
ARCHIVE = "results/records/tiny.jsonl.xz"


@pytest.fixture
def archived(stored: Path, call: Any) -> Path:
    """Return a folder with the suite, and its records in an archive alone."""
    assert call("archive", "tiny.yaml").code == 0
    shutil.rmtree(RUN)
    return stored


def test_every_form_tells_of_every_row(stored: Path, call: Any) -> None:
    named = {"llama-1m", "absmax", "rtn", "ste_qat"}
    for form in ("text", "md", "csv", "json", "latex"):
        said = call("report", "tiny.yaml", "--format", form)
        assert (said.code, said.err) == (0, ""), form
        words = said.out.replace("\\_", "_")
        assert all(name in words for name in named), form
        assert said.out.endswith("\n"), form
    assert call("report", "tiny.yaml", "--format", "json").out == call("report", "tiny.yaml", "--json").out


def test_a_row_a_cell(stored: Path, call: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(call("report", "tiny.yaml", "--format", "csv", "--cells").out)))
    held = RunFolder(Path(RUN)).read_all()
    assert {row["cell_id"] for row in rows if row["cell_id"]} == held.keys()
    for row in rows:
        if row["cell_id"]:
            assert float(row["loss"]) == held[row["cell_id"]].loss


def test_a_file_in_place_of_the_terminal(stored: Path, call: Any) -> None:
    said = call("report", "tiny.yaml", "--format", "parquet", "--output", "out/board.parquet")
    assert (said.code, said.out, said.err) == (0, "", "wrote out/board.parquet\n")
    entries = list(csv.DictReader(io.StringIO(call("report", "tiny.yaml", "--format", "csv").out)))
    assert pyarrow.parquet.read_table("out/board.parquet").num_rows == len(entries)
    said = call("report", "tiny.yaml", "--format", "md", "--output", "board.md")
    assert said.code == 0 and Path("board.md").read_text() == call("report", "tiny.yaml", "--format", "md").out


def test_a_folder_an_archive_and_a_suite_say_the_same(stored: Path, call: Any) -> None:
    assert call("archive", "tiny.yaml").code == 0
    by_suite = json.loads(call("report", "tiny.yaml", "--json").out)
    by_archive = json.loads(call("report", ARCHIVE, "--json").out)
    assert by_archive == by_suite
    by_folder = json.loads(call("report", RUN, "--json").out)
    assert by_folder["groups"][0]["rows"]["rtn"] == by_suite["groups"][0]["rows"]["rtn"]
    both = json.loads(call("report", "tiny.yaml", ARCHIVE, "--json").out)
    assert both == [by_suite, by_archive]


def test_a_suite_that_was_not_run_is_shown_by_its_published_records(archived: Path, call: Any) -> None:
    said = call("report", "tiny.yaml")
    assert said.code == 0
    assert said.err.startswith(f"no run of tiny here: these are its published records, {ARCHIVE} (")
    assert said.out == call("report", ARCHIVE).out
    few = call("report", "tiny.yaml", "--only", "method=rtn,bits=2")
    assert few.code == 0 and "ste_qat" not in few.out and "rtn" in few.out


def test_an_archive_says_what_changed(stored: Path, call: Any) -> None:
    said = call("archive", "tiny.yaml")
    assert (said.code, said.out, said.err) == (0, "", f"wrote {ARCHIVE}: 5 records\n")
    first = Path(ARCHIVE).read_bytes()
    assert call("archive", "tiny.yaml").err == f"wrote {ARCHIVE}: 5 records (the same results as before)\n"
    assert Path(ARCHIVE).read_bytes() == first
    folder = RunFolder(Path(RUN))
    one = next(record for record in folder.read_all().values() if record.axes["method"] == "rtn")
    one.metrics["loss/blocks128"] += 0.1
    folder.write(one)
    assert call("archive", "tiny.yaml").err == f"wrote {ARCHIVE}: 5 records (1 changed)\n"


def test_a_run_that_is_not_whole_is_not_archived(stored: Path, call: Any) -> None:
    folder = RunFolder(Path(RUN))
    gone = next(record for record in folder.read_all().values() if record.axes["method"] == "rtn")
    folder.record_path(gone.cell_id).unlink()
    said = call("archive", "tiny.yaml")
    assert said.code == 2 and said.err.startswith(f"qbench: no record of {gone.label}: `qbench run --suite tiny.yaml`")
    assert not Path(ARCHIVE).exists()


def test_a_page_of_a_run(stored: Path, call: Any) -> None:
    said = call("report", "tiny.yaml", "--html", "page.html")
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("wrote page.html (") and said.err.count("\n") == 1
    page = Path("page.html").read_text()
    assert page.startswith("<!doctype html>") and "no baseline at results/baselines/tiny.json" in page
    call("report", "tiny.yaml", "--html", "page.html")
    assert Path("page.html").read_text() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a report of what?"),
        (["tiny.yaml", "--format", "parquet"], "say where it goes"),
        (["tiny.yaml", "--cells"], "--cells is for csv and parquet"),
        (["tiny.yaml", "--json", "--format", "csv"], "say one of them"),
        (["tiny.yaml", RUN, "--write"], "--write names files by the suite"),
        ([RUN, "--only", "bits=2"], "for suites only"),
        (["tiny.yaml", RUN, "--out", RUN], "--out is the folder of one suite's records"),
        (["gone.jsonl.xz"], "gone.jsonl.xz cannot be read"),
        (["tiny.yaml", "--html", "."], "is a folder"),
        (["tiny.yaml", "--html", "-"], "is no file"),
    ],
    ids=str,
)
def test_a_wrong_call_is_refused_in_one_line(stored: Path, call: Any, arguments: list[str], message: str) -> None:
    said = call("report", *arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err and said.err.count("\n") == 1


def test_a_damaged_record_is_told_on_the_page(stored: Path, call: Any) -> None:
    gone = next(record for record in RunFolder(Path(RUN)).read_all().values() if record.axes["method"] == "rtn")
    path = RunFolder(Path(RUN)).record_path(gone.cell_id)
    path.write_text(path.read_text()[:100])
    said = call("report", RUN, "--html", "page.html")
    assert said.code == 0 and f"{path} is no record" in said.err
    assert "1 damaged file is left aside" in Path("page.html").read_text()

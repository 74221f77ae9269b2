"""CSV gives back what was put in."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable

import pytest

from qbench.report.run import Run
from qbench.report.table_csv import render_csv
from qbench.report.tidy import table
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


@pytest.fixture(scope="module")
def runs(make_record: MakeRecord, make_image_record: MakeRecord) -> list[Run]:
    odd = {
        "loss/blocks128": 1 / 3,
        "n0": math.nan,
        "n1": -math.inf,
        "n2": math.inf,
        "n3": 5e-324,
        "n4": 0.1 + 0.2,
        "n5": 1e22,
    }
    one = [make_record("m/fp/s0"), make_record('m/m"s,e/2b/rtn/s0', metrics=odd)]
    one += [make_record("m/mse/2b/gptq/s0", status="failed", reason='line one\nline two, "quoted"')]
    return [Run("one", one), Run("two", [make_image_record("r/fp/s0"), make_image_record("r/mse/2b/rtn/s0", 0.7)])]


@pytest.mark.parametrize("cells", [False, True])
def test_what_is_read_back_is_what_was_written(runs: list[Run], cells: bool) -> None:
    columns, rows = table(runs, cells=cells)
    read = list(csv.DictReader(io.StringIO(render_csv(runs, cells=cells), newline="")))
    assert list(read[0]) == list(columns) and len(read) == len(rows)
    revive = {float: float, int: int, str: str, bool: {"true": True, "false": False}.__getitem__}
    for written, row in zip(read, rows, strict=True):
        again = {name: revive[kind](written[name]) if written[name] else None for name, kind in columns.items()}
        assert repr(again) == repr(row)  # nan is nan, and 1 is not 1.0


def test_pandas_reads_the_same_numbers(runs: list[Run]) -> None:
    pandas = pytest.importorskip("pandas")
    columns, rows = table(runs, cells=True)
    frame = pandas.read_csv(io.StringIO(render_csv(runs, cells=True)))
    for name in [name for name, kind in columns.items() if kind is float]:
        expected = [math.nan if row[name] is None else row[name] for row in rows]
        assert frame[name].to_list() == pytest.approx(expected, rel=0, abs=0, nan_ok=True), name


def test_lines_end_in_one_character_and_infinities_are_spelled_as_in_records(runs: list[Run]) -> None:
    text = render_csv(runs, cells=True)
    assert "\r" not in text and text.endswith("\n")
    assert ",NaN,-Infinity,Infinity,5e-324,0.30000000000000004,1e+22," in text


def test_without_a_run_there_are_the_names_of_the_columns() -> None:
    assert render_csv([], cells=False).startswith("suite,model,quantizer,bits,method,") and render_csv(
        [], cells=False
    ).endswith(",notes\n")


@pytest.mark.parametrize("reason", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_word_is_a_formula(make_record: MakeRecord, reason: str) -> None:
    records = [make_record("m/fp/s0"), make_record("m/mse/2b/rtn/s0", status="failed", reason=reason)]
    rows = list(csv.DictReader(io.StringIO(render_csv([Run("one", records)], cells=True), newline="")))
    assert [row["reason"] for row in rows] == ["", f"'{reason}"]

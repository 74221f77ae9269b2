"""What can be told from the weights alone, before a loss shows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from qbench.store.comparison import compare
from qbench.store.gathering import gather
from qbench.store.record import Record
from qbench.store.tolerance import Tolerances
from qbench.store.verdict import ComparisonRow

MakeRecord = Callable[..., Record]
Run = Callable[..., list[Record]]

RTN = "m/mse/4b/rtn/s0"


@pytest.fixture
def run(make_record: MakeRecord) -> Run:
    def run(sqnr: float, loss: float = 3.1, **fields: Any) -> list[Record]:
        metrics = {"loss/blocks128": loss, "weight_sqnr_db": sqnr}
        shared = {"environment": {"device": "cpu", "threads": 1}} | fields
        full = make_record("m/fp/s0", metrics={"loss/blocks128": 3.0}, **{**shared, "effective_bits": None})
        return [full, make_record(RTN, metrics=metrics, **shared)]

    return run


def judged(then: list[Record], now: list[Record], *repeats: list[Record]) -> ComparisonRow:
    return next(row for row in compare(now, gather(then, repeats)).rows if row.label == RTN)


@pytest.mark.parametrize("change", [0.021, -0.021, 5.0, math.inf])
def test_a_larger_or_smaller_error_is_red_whatever_the_loss_says(run: Run, change: float) -> None:
    row = judged(run(20.0), run(20.0 + change))
    assert (row.verdict, row.delta) == ("moved", 0)
    assert row.note.startswith("SQNR of the weights 20.00 dB -> ")
    assert not compare(run(20.0 + change), gather(run(20.0))).passed


@pytest.mark.parametrize("change", [0.0, 0.019, -0.019])
def test_what_a_rounding_does_is_not(run: Run, change: float) -> None:
    assert judged(run(20.0), run(20.0 + change)).verdict == "same"


def test_an_error_of_nothing_is_the_same_as_before(run: Run) -> None:
    assert judged(run(math.inf), run(math.inf)).verdict == "same"
    assert judged(run(math.inf), run(20.0)).verdict == "moved"


def test_a_step_that_is_two_percent_too_wide_is_beyond_every_tolerance_but_a_measured_one(run: Run) -> None:
    too_wide = 20 * math.log10(1.02)
    elsewhere = {"environment": {"device": "cpu", "threads": 8}}
    for fields in ({}, elsewhere):
        assert judged(run(20.0), run(20.0 - too_wide, **fields)).verdict == "moved"
    wild = [run(20.0 + change) for change in (0.3, -0.3, 0.2)]
    assert judged(run(20.0), run(20.0 - too_wide, **elsewhere), *wild).verdict == "same"
    assert judged(run(20.0), run(20.0 - too_wide), *wild).verdict == "moved", "on the same ground nothing is noise"
    calm = [run(20.0 + change) for change in (1e-4, -1e-4, 0.0)]
    assert judged(run(20.0), run(20.0 - too_wide, **elsewhere), *calm).verdict == "moved"


def test_tolerances_by_ground_and_by_repeats(run: Run) -> None:
    cell = gather(run(20.0)).cells[RTN]
    silent = Tolerances(gather(run(20.0)))
    assert [silent.of(cell, alike=alike).sqnr for alike in (True, False)] == [0.02, 0.05]
    repeated = Tolerances(gather(run(20.0), [run(20.0001), run(20.0002)]))
    assert [repeated.of(cell, alike=alike).sqnr for alike in (True, False)] == [0.02, 0.02]


def test_a_loss_that_says_more_has_the_word(run: Run) -> None:
    row = judged(run(20.0), run(19.0, loss=3.2))
    assert row.verdict == "worse" and "SQNR" in row.note


def test_other_effective_bits_are_red(run: Run) -> None:
    row = judged(run(20.0, effective_bits=4.25), run(20.0, effective_bits=4.5))
    assert (row.verdict, row.note) == ("moved", "effective bits 4.25 -> 4.5")
    assert judged(run(20.0, effective_bits=4.25), run(20.0, effective_bits=4.25)).verdict == "same"

"""Tidy rows: everything the leaderboard says, nothing rounded, nothing hidden."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from qbench.report.run import Run
from qbench.report.tidy import CELL_COLUMNS, ENTRY_COLUMNS, cell_rows, rows, table
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


@pytest.fixture(scope="module")
def run(make_record: MakeRecord) -> Run:
    """Return one with a cell of each ending, and a probe."""
    made = [make_record(f"m/fp/s{seed}") for seed in range(2)]
    made += [make_record(f"m/mse/2b/rtn/s{seed}", 0.6 - 0.2 * seed) for seed in range(2)]
    made += [make_record(f"m/mse/2b/gptq/s{seed}", 0.3, fallback="rtn: no inverse") for seed in range(2)]
    made += [make_record("m/mse/2b/lsq/s0", status="failed", reason="out of memory")]
    made += [make_record("m/mse/2b/ste_qat/s0", metrics={"loss/blocks128": math.nan})]
    made += [make_record("m/g64/2b/rtn/s0", 0.1)]
    probe = make_record(
        "m/mse/2b/basin/s0", key={"probe": {"kind": "basin"}}, metrics={"radius": 0.1 + 0.2, "loss": 2.0}
    )
    places: list[dict[str, Any]] = [{**one.axes, "skip": None} for one in made]
    places += [{**made[6].axes, "seed": 1, "skip": None}, {**made[7].axes, "seed": 1, "skip": "too long"}]
    probes = [probe.axes, {**probe.axes, "seed": 1}]
    return Run("suite", [*made, probe], places, probes)


def row_of(found: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    (row,) = [row for row in found if all(row[name] == value for name, value in wanted.items())]
    return row


def test_every_row_has_the_same_columns(run: Run) -> None:
    for told, fixed in ((rows(run), ENTRY_COLUMNS), (cell_rows(run), CELL_COLUMNS)):
        names = list(told[0])
        assert names[: len(fixed)] == list(fixed) and names[len(fixed) :] == sorted(names[len(fixed) :])
        assert all(list(row) == names for row in told)
        for row in told:
            for name, value in row.items():
                assert value is None or type(value) is fixed.get(name, float), (name, value)


def test_full_precision_stands_once_though_two_quantizers_are_read_against_it(run: Run) -> None:
    assert row_of(rows(run), method="fp")["quantizer"] is None
    assert len(run.board.groups) == 2


def test_a_row_is_what_the_leaderboard_says_with_every_digit(run: Run) -> None:
    entry = run.board.groups[0].rows["rtn"][2]
    row = row_of(rows(run), method="rtn", quantizer="mse")
    assert entry.excess is not None and entry.regime is not None
    assert (row["excess"], row["excess_low"], row["excess_high"]) == (
        entry.excess.mean,
        entry.excess.low,
        entry.excess.high,
    )
    assert (row["regime"], row["regime_seeds"]) == ("failed", 1)
    assert entry.regime.text == "failed 1/2"
    assert (row["tau"], row["tau_f"]) == (entry.regime.tau, entry.regime.tau_f)
    assert row["weight_sqnr_db"] == 12.0 and row["complete"] is True


def test_rows_that_are_not_complete_have_no_numbers_and_say_why(run: Run) -> None:
    lsq = row_of(rows(run), method="lsq")
    assert (lsq["complete"], lsq["failed"], lsq["missing"], lsq["loss"]) == (False, 1, 1, None)
    assert lsq["notes"] == "failed: out of memory"
    qat = row_of(rows(run), method="ste_qat")
    assert (qat["diverged"], qat["skipped"], qat["excess"]) == (1, 1, None)
    assert qat["notes"] == "diverged: loss is nan; skipped: too long"
    fallen = row_of(rows(run), method="gptq")
    assert (fallen["fallbacks"], fallen["notes"]) == (2, "fallback: rtn: no inverse")


def test_every_cell_has_a_row_also_one_without_a_record(run: Run) -> None:
    told = cell_rows(run)
    assert len(told) == len(run.places) + len(run.probes)
    assert row_of(told, method="lsq", seed=0)["reason"] == "out of memory"
    assert row_of(told, method="lsq", seed=1)["status"] == "missing"
    assert row_of(told, method="ste_qat", seed=0)["status"] == "diverged"
    skipped = row_of(told, method="ste_qat", seed=1)
    assert (skipped["status"], skipped["reason"], skipped["cell_id"]) == ("skipped", "too long", None)
    fallen = row_of(told, method="gptq", seed=0)
    assert (fallen["status"], fallen["fallbacks"], fallen["fallback_reasons"]) == ("ok", 1, "rtn: no inverse")


def test_probes_are_cells_and_a_metric_called_as_a_column_does_not_take_its_place(run: Run) -> None:
    told = row_of(cell_rows(run), kind="probe", seed=0)
    assert (told["radius"], told["loss"], told["metric:loss"]) == (0.1 + 0.2, None, 2.0)
    assert row_of(cell_rows(run), kind="probe", seed=1)["status"] == "missing"
    assert all(row["method"] != "basin" for row in rows(run))


def test_where_the_suite_is_not_known_the_cells_are_those_that_have_records(run: Run) -> None:
    told = cell_rows(Run("folder", run.records))
    assert len(told) == len(run.records)
    assert told == cell_rows(Run("folder", list(reversed(run.records))))


def test_runs_of_other_metrics_share_their_columns(run: Run, make_image_record: MakeRecord) -> None:
    images = Run("images", [make_image_record("r/fp/s0")])
    columns, found = table([run, images], cells=True)
    assert list(columns)[: len(CELL_COLUMNS)] == list(CELL_COLUMNS)
    assert {"accuracy/top1", "radius"} <= set(columns)
    assert len(found) == len(cell_rows(run)) + 1 and all(list(row) == list(columns) for row in found)
    assert (found[-1]["suite"], found[-1]["radius"]) == ("images", None)
    assert table([], cells=False) == (dict(ENTRY_COLUMNS), [])

"""Blessing, and what a later run is told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import StoreError
from qbench.store.baseline import Baseline, make_baseline, read_baseline, write_baseline
from qbench.store.comparison import ComparisonRow, compare
from qbench.store.record import Record

MakeRecord = Callable[..., Record]

GPTQ = "llama-1m/mse/2b/gptq/s0"
FULL = "llama-1m/fp/s0"


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    made = [make_record(f"llama-1m/fp/s{seed}", 2.9) for seed in range(3)]
    made += [make_record(f"llama-1m/mse/2b/gptq/s{seed}", 3.5 + 0.1 * seed) for seed in range(3)]
    return [*made, make_record("llama-1m/mse/4b/rtn/s0", 2.92, weights_sha256="abc")]


def replaced(records: list[Record], record: Record) -> list[Record]:
    return [record if other.label == record.label else other for other in records]


def row(records: list[Record], baseline: Baseline, label: str) -> ComparisonRow:
    return next(row for row in compare(records, baseline).rows if row.label == label)


def test_the_spread_is_that_of_the_excess_loss(records: list[Record], make_record: MakeRecord) -> None:
    # The full-precision seeds lie apart as well: only the excess counts, .6, .6 and .9.
    moved = replaced(records, make_record("llama-1m/fp/s1", 3.0))
    moved = replaced(moved, make_record("llama-1m/mse/2b/gptq/s2", 3.8))
    # A control is unquantized too, and nothing is measured from it.
    moved += [make_record(f"llama-1m/fine_tune/s{seed}", 1.0) for seed in range(3)]
    spread = {entry.row: entry for entry in make_baseline(moved).spread}
    gptq = spread["llama-1m", "mse", 2, "gptq"]
    assert (gptq.seeds, gptq.mean) == (3, pytest.approx(0.7))
    assert gptq.sd == pytest.approx(math.sqrt(0.03))
    assert spread["llama-1m", "mse", 4, "rtn"].sd is None


def test_a_baseline_survives_its_file(records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    baseline = make_baseline(records)
    write_baseline(path, baseline, expected_labels=[record.label for record in records])
    assert read_baseline(path) == baseline
    lines = path.read_text().splitlines()
    assert sum(record.label in line for record in records for line in lines) == len(records), "one line a cell"
    assert list(json.loads(path.read_text())["cells"]) == sorted(record.label for record in records)


def test_only_clean_and_whole_suites_are_blessed(
    records: list[Record], make_record: MakeRecord, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.json"
    dirty = replaced(records, make_record(GPTQ, fallback="rtn: Cholesky failed"))
    dirty = replaced(dirty, make_record(FULL, status="failed", reason="out of memory", metrics={}))
    baseline = make_baseline(dirty)
    expected = [*(record.label for record in records), "llama-1m/mse/2b/lsq/s0"]
    with pytest.raises(StoreError) as caught:
        write_baseline(path, baseline, expected_labels=expected)
    assert "not blessed, because of 3 of 8 cells: " in str(caught.value)
    assert f"{GPTQ} (a layer fell back)" in str(caught.value)
    assert f"{FULL} (failed: out of memory)" in str(caught.value)
    assert "llama-1m/mse/2b/lsq/s0 (missing)" in str(caught.value)
    with pytest.raises(StoreError, match="because of 1 of 8 cells: llama-1m/mse/2b/lsq/s0"):
        write_baseline(path, baseline, expected_labels=expected, accepted=[GPTQ, FULL])
    assert not path.exists()
    write_baseline(path, baseline, expected_labels=expected, accepted=[GPTQ, FULL, "llama-1m/mse/2b/lsq/s0"])
    assert read_baseline(path) == baseline


def test_a_nan_loss_is_not_clean(make_record: MakeRecord, tmp_path: Path) -> None:
    baseline = make_baseline([make_record(GPTQ, math.nan)])
    with pytest.raises(StoreError, match="loss is nan"):
        write_baseline(tmp_path / "a.json", baseline, expected_labels=[GPTQ])


def test_an_accepted_label_must_exist(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"cannot accept .*did you mean '{GPTQ}'"):
        write_baseline(
            tmp_path / "a.json",
            make_baseline(records),
            expected_labels=[],
            accepted=["llama-1m/mse/2b/gtpq/s0"],
        )


def test_a_baseline_is_of_one_suite(make_record: MakeRecord) -> None:
    mixed = [make_record(), make_record(FULL, suite="other")]
    with pytest.raises(StoreError, match=r"several suites \(other, tiny\)"):
        make_baseline(mixed)
    assert make_baseline(mixed, suite="tiny").suite == "tiny"
    with pytest.raises(StoreError, match="no records"):
        make_baseline([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no baseline at .*bless"),
        ("{", "not JSON"),
        ('{"schema_version": 99}', "newer qbench"),
        ('{"schema_version": 1, "suite": "a", "qbench_version": "1"}', "cells: Field required"),
    ],
)
def test_what_is_no_baseline_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "tiny.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StoreError, match=message):
        read_baseline(path)


def test_a_run_equals_its_own_baseline(records: list[Record]) -> None:
    comparison = compare(records, make_baseline(records))
    assert comparison.counts == {"same": len(records)}
    assert not comparison.regressed
    assert comparison.environment == {}
    assert [r.label for r in comparison.rows if r.identical] == ["llama-1m/mse/4b/rtn/s0"]


def test_the_tolerance_is_measured(records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(records)
    # gptq: sd of .6, .7, .8 is .1, three times that; rtn has one seed: the floor.
    for label, old, tolerance in ((GPTQ, 3.5, 0.3), ("llama-1m/mse/4b/rtn/s0", 2.92, 0.02)):
        for change, verdict in ((0.99, "same"), (1.01, "worse"), (-0.99, "same"), (-1.01, "better")):
            judged = row(replaced(records, make_record(label, old + change * tolerance)), baseline, label)
            assert judged.tolerance == pytest.approx(tolerance)
            assert judged.verdict == verdict
            assert judged.delta == pytest.approx(change * tolerance)


def test_what_is_gone_or_broken_regresses(records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(records)
    gone = [record for record in records if record.label != GPTQ]
    assert row(gone, baseline, GPTQ).verdict == "missing"
    for broken in (
        make_record(GPTQ, status="diverged", reason="NaN at step 3", metrics={}),
        make_record(GPTQ, math.inf),
    ):
        assert row([*gone, broken], baseline, GPTQ).verdict == "failed"
        assert compare([*gone, broken], baseline).regressed
    fell = row([*gone, make_record(GPTQ, 3.5, fallback="rtn")], baseline, GPTQ)
    assert (fell.verdict, fell.note) == ("worse", "layers that fell back: 1, in the baseline none")
    other = make_record(GPTQ, metrics={"loss/blocks256": 3.5})
    assert row([*gone, other], baseline, GPTQ).note == "measured as loss/blocks256, the baseline as loss/blocks128"
    assert compare([*gone, other], baseline).regressed


def test_an_accepted_failure_is_not_a_regression(records: list[Record], make_record: MakeRecord) -> None:
    failed = make_record(GPTQ, status="failed", reason="out of memory", metrics={})
    baseline = make_baseline(replaced(records, failed))
    again = row(replaced(records, failed), baseline, GPTQ)
    assert (again.verdict, again.note) == ("same", "out of memory (accepted in the baseline)")
    assert row(records, baseline, GPTQ).verdict == "better"


def test_a_new_cell_is_new_unless_it_failed(records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(records)
    label = "llama-1m/mse/2b/lsq/s0"
    assert row([*records, make_record(label)], baseline, label).verdict == "new"
    assert row([*records, make_record(label, status="failed", metrics={})], baseline, label).verdict == "failed"


def test_a_subset_is_judged_by_what_it_had_to_run(records: list[Record]) -> None:
    baseline = make_baseline(records)
    subset = [record for record in records if record.axes["method"] in ("fp", "rtn")]
    expected = [record.label for record in subset]
    comparison = compare(subset, baseline, expected)
    assert comparison.counts == {"same": 4}
    assert comparison.left_out == 3
    assert compare(subset, baseline).counts == {"missing": 3, "same": 4}
    assert compare(subset[1:], baseline, expected).regressed


def test_the_worst_comes_first(records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(records)
    run = replaced(records, make_record(GPTQ, status="failed", metrics={}))
    run = replaced(run, make_record("llama-1m/mse/4b/rtn/s0", 3.2))
    run = replaced(run, make_record("llama-1m/mse/2b/gptq/s1", 4.0))
    run = [record for record in run if record.label != FULL]
    assert [r.label for r in compare(run, baseline).rows][:4] == [
        GPTQ,
        FULL,
        "llama-1m/mse/4b/rtn/s0",
        "llama-1m/mse/2b/gptq/s1",
    ]


def test_another_ground_is_said_aloud(records: list[Record], make_record: MakeRecord) -> None:
    now = [record.model_copy(update={"environment": {"torch": "2.9.0", "threads": 2}}) for record in records]
    comparison = compare(now, make_baseline(records))
    assert comparison.environment == {"torch": ("2.8.0", "2.9.0")}
    assert comparison.to_json()["regressed"] is False


IMAGES = "resnet8-mnist/mse/2b/rtn/s0"


def image_record(make_record: MakeRecord, label: str, loss: float, accuracy: float) -> Record:
    return make_record(label, metrics={"loss/cross_entropy": loss, "accuracy/top1": accuracy})


@pytest.fixture
def image_records(make_record: MakeRecord) -> list[Record]:
    """Return three seeds, two points apart above full precision that is two points apart as well, and a row of one."""
    made = [image_record(make_record, f"resnet8-mnist/fp/s{seed}", 0.06, 0.96 + 0.01 * seed) for seed in range(3)]
    made += [
        image_record(make_record, f"resnet8-mnist/mse/2b/rtn/s{seed}", 2.0 + 0.1 * seed, 0.2 + 0.02 * seed)
        for seed in range(3)
    ]
    return [*made, image_record(make_record, "resnet8-mnist/mse/4b/rtn/s0", 0.07, 0.955)]


def test_images_are_blessed_and_compared(image_records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    baseline = make_baseline(image_records)
    write_baseline(path, baseline, expected_labels=[record.label for record in image_records])
    assert read_baseline(path) == baseline
    assert compare(image_records, read_baseline(path)).counts == {"same": 7}


def test_accuracy_has_a_tolerance_of_its_own(image_records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(image_records)
    # The change from full precision is -.76, -.75 and -.74: its sd is .01, three times that; 4 bits have one seed.
    for label, loss, old, tolerance in (
        (IMAGES, 2.0, 0.2, 0.03),
        ("resnet8-mnist/mse/4b/rtn/s0", 0.07, 0.955, 0.005),
    ):
        for change, verdict in ((0.99, "same"), (1.01, "better"), (-0.99, "same"), (-1.01, "worse")):
            now = image_record(make_record, label, loss, old + change * tolerance)
            judged = row(replaced(image_records, now), baseline, label)
            assert judged.accuracy_tolerance == pytest.approx(tolerance)
            assert (judged.verdict, bool(judged.note)) == (verdict, verdict != "same")
    worse = compare(replaced(image_records, image_record(make_record, IMAGES, 2.0, 0.152)), baseline)
    assert worse.regressed
    assert worse.rows[0].note == "accuracy 20.0 % -> 15.2 %, tolerance 3.0"
    assert worse.to_json()["rows"][0]["new_accuracy"] == 0.152


def test_what_is_worse_by_one_measure_is_worse(image_records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(image_records)
    for loss, accuracy in ((1.0, 0.1), (3.0, 0.9)):
        now = image_record(make_record, IMAGES, loss, accuracy)
        assert row(replaced(image_records, now), baseline, IMAGES).verdict == "worse"


def test_accuracy_that_is_gone_regresses(image_records: list[Record], make_record: MakeRecord) -> None:
    now = make_record(IMAGES, metrics={"loss/cross_entropy": 2.0})
    judged = row(replaced(image_records, now), make_baseline(image_records), IMAGES)
    assert (judged.verdict, judged.note) == ("missing", "no accuracy was measured, the baseline has one")


def test_of_accuracies_the_worst_change_comes_first(image_records: list[Record], make_record: MakeRecord) -> None:
    baseline = make_baseline(image_records)
    run = replaced(image_records, image_record(make_record, IMAGES, 2.0, 0.152))
    run = replaced(run, image_record(make_record, "resnet8-mnist/mse/4b/rtn/s0", 0.07, 0.9))
    assert [r.label for r in compare(run, baseline).rows][:2] == ["resnet8-mnist/mse/4b/rtn/s0", IMAGES]

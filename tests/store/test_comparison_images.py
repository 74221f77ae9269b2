"""Image classifiers are judged by two measures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qbench.store.comparison import compare
from qbench.store.gathering import gather
from qbench.store.record import Record
from qbench.store.results import Results
from qbench.store.verdict import ComparisonRow

MakeRecord = Callable[..., Record]

IMAGES = "resnet8-mnist/mse/2b/rtn/s0"
FOUR = "resnet8-mnist/mse/4b/rtn/s0"


def of(make_record: MakeRecord, label: str, loss: float, accuracy: float) -> Record:
    facts = {"chance_loss": 2.3, "chance_accuracy": 0.1}
    return make_record(label, metrics={"loss/cross_entropy": loss, "accuracy/top1": accuracy}, facts=facts)


def replaced(records: list[Record], record: Record) -> list[Record]:
    return [record if other.label == record.label else other for other in records]


def row(records: list[Record], baseline: Results, label: str) -> ComparisonRow:
    return next(row for row in compare(records, baseline).rows if row.label == label)


def elsewhere(records: list[Record]) -> list[Record]:
    """Return the records as another machine would have made them."""
    return [one.model_copy(update={"environment": {**one.environment, "torch": "other"}}) for one in records]


@pytest.fixture
def run(make_record: MakeRecord) -> list[Record]:
    """Return three seeds, two points apart above full precision that is one point apart, and a row of one."""
    made = [of(make_record, f"resnet8-mnist/fp/s{seed}", 0.06, 0.96 + 0.01 * seed) for seed in range(3)]
    made += [of(make_record, f"resnet8-mnist/mse/2b/rtn/s{seed}", 2.0, 0.2 + 0.02 * seed) for seed in range(3)]
    return [*made, of(make_record, FOUR, 0.07, 0.955)]


@pytest.fixture
def baseline(run: list[Record]) -> Results:
    return gather(run)


def test_a_run_equals_its_own_baseline(run: list[Record], baseline: Results) -> None:
    assert compare(run, baseline).counts == {"same": 7}


def test_accuracy_has_a_tolerance_of_its_own(run: list[Record], baseline: Results, make_record: MakeRecord) -> None:
    # The change from full precision is -.76, -.75 and -.74: its sd is .01, three times that; 4 bits have one seed.
    for label, loss, old, tolerance in ((IMAGES, 2.0, 0.2, 0.03), (FOUR, 0.07, 0.955, 0.005)):
        for change, verdict in ((0.99, "same"), (1.01, "better"), (-0.99, "same"), (-1.01, "worse")):
            now = of(make_record, label, loss, old + change * tolerance)
            judged = row(elsewhere(replaced(run, now)), baseline, label)
            assert judged.accuracy_tolerance == pytest.approx(tolerance)
            assert (judged.verdict, "accuracy" in judged.note) == (verdict, verdict != "same")
    assert row(run, baseline, IMAGES).accuracy_tolerance == 0.005, "on the same ground"
    worse = compare(elsewhere(replaced(run, of(make_record, IMAGES, 2.0, 0.152))), baseline)
    assert worse.regressed
    assert worse.rows[0].note == "noise unmeasured; accuracy 20.0 % -> 15.2 %, tolerance 3.0"
    assert worse.to_json()["rows"][0]["new_accuracy"] == 0.152


def test_what_is_worse_by_one_measure_is_worse(run: list[Record], baseline: Results, make_record: MakeRecord) -> None:
    for loss, accuracy in ((1.0, 0.1), (3.0, 0.9)):
        assert row(replaced(run, of(make_record, IMAGES, loss, accuracy)), baseline, IMAGES).verdict == "worse"


def test_accuracy_that_is_gone_is_red(run: list[Record], baseline: Results, make_record: MakeRecord) -> None:
    now = make_record(IMAGES, metrics={"loss/cross_entropy": 2.0})
    judged = row(replaced(run, now), baseline, IMAGES)
    assert (judged.verdict, judged.note) == ("missing", "no accuracy was measured, the baseline has one")


def test_of_accuracies_the_worst_change_comes_first(
    run: list[Record], baseline: Results, make_record: MakeRecord
) -> None:
    now = replaced(run, of(make_record, IMAGES, 2.0, 0.152))
    now = replaced(now, of(make_record, FOUR, 0.07, 0.9))
    assert [r.label for r in compare(now, baseline).rows][:2] == [FOUR, IMAGES]


def test_full_precision_whose_accuracy_moved_blocks_its_cells(
    run: list[Record], baseline: Results, make_record: MakeRecord
) -> None:
    now = replaced(run, of(make_record, "resnet8-mnist/fp/s0", 0.06, 0.95))
    assert compare(now, baseline).counts == {"worse": 1, "blocked": 2, "same": 4}


def test_recovery_is_of_both_measures(run: list[Record], baseline: Results) -> None:
    judged = row(run, baseline, FOUR)
    assert judged.old_recovery == judged.new_recovery == pytest.approx((2.3 - 0.07) / (2.3 - 0.06))
    assert judged.new_accuracy_recovery == pytest.approx((0.955 - 0.1) / (0.96 - 0.1))

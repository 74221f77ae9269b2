"""What methods gave is told for the method itself, the better of several, at the batch norms it was deployed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qbench.claims.regimes import Basin
from qbench.diagnosis.outcome import Measured, Outcome, merged, outcomes
from qbench.store.record import Cost, Record

Make = Callable[..., Record]
KEPT = ("llama-1m", "mse", "keep", 0)


def only(records: list[Record], bits: int = 3) -> Outcome:
    found = outcomes(records)
    assert set(found) == {(KEPT, bits)}
    return found[KEPT, bits]


def test_excess_is_over_full_precision_and_the_better_of_second_order_roundings_counts(record: Make) -> None:
    records = [record("fp"), record("rtn", 3, 0.4), record("gptq", 3, 0.2), record("adaround", 3, 0.1)]
    found = only(records)
    assert found.rtn is not None and found.second_order is not None
    assert found.rtn.excess == pytest.approx(0.4)
    assert found.second_order.method == "adaround"
    assert found.second_order.excess == pytest.approx(0.1)
    assert found.qat is None
    assert found.seconds == pytest.approx(9.0)
    without = only(records[:3])
    assert without.second_order is not None and without.second_order.method == "gptq"
    assert only(records[:2]).second_order is None


def test_of_several_trainings_the_best_counts(record: Make) -> None:
    records = [record("fp"), record("rtn", 3, 0.4)]
    records += [record("ste_qat", 3, lost, options={"steps": steps}) for lost, steps in ((0.3, 7), (0.1, 9), (0.2, 11))]
    found = only(records)
    assert found.qat is not None
    assert found.qat.excess == pytest.approx(0.1)
    assert found.seconds == pytest.approx(3 * 4)


def test_a_trajectory_is_the_way_there(record: Make) -> None:
    traces = {"trajectory/step": [0.0, 10.0, 40.0], "trajectory/deployed": [0.4, 0.3, 0.2]}
    found = only([record("fp"), record("rtn", 3, 0.4), record("ste_qat", 3, 0.1, traces=traces)])
    assert found.qat is not None
    assert [step for step, _ in found.qat.way] == [10, 40, 80]
    assert [excess for _, excess in found.qat.way] == pytest.approx([0.3, 0.2, 0.1])
    assert found.qat.steps == 80
    assert found.rtn is not None
    assert (found.rtn.way, found.rtn.steps) == ((), 0)


@pytest.mark.parametrize(
    ("method", "options", "counts"),
    [
        ("gptq", {}, True),
        ("gptq", {"bn": "recalibrate"}, True),
        ("gptq", {"percdamp": 0.1}, False),
        ("gptq", {"act_order": False}, False),
        ("ste_qat", {"steps": 7, "batch_size": 3, "learning_rate": 0.01}, True),
        ("ste_qat", {"steps": 7, "optimizer": "sgd"}, False),
        ("lsq", {}, False),
        ("ft_then_ptq", {}, False),
    ],
)
def test_a_method_of_other_options_is_another_method(
    record: Make, method: str, options: dict[str, Any], counts: bool
) -> None:
    trained = Cost(train_tokens=10, train_steps=7) if method in ("ste_qat", "lsq", "ft_then_ptq") else Cost()
    records = [record("fp"), record("rtn", 3, 0.4), record("rtn", 3, 0.4, options={"bn": "recalibrate"})]
    found = outcomes([*records, record(method, 3, 0.2, options=options, cost=trained)])
    told = set().union(*(set(one.methods) for one in found.values()))
    assert told == {"rtn"} | ({"qat" if method == "ste_qat" else method} if counts else set())


def test_the_plainest_of_several_labels_is_told(record: Make) -> None:
    tuned = record("adaround", 3, 0.1, options={"batch_size": 3})
    plain = record("adaround", 3, 0.2)
    for order in ([tuned, plain], [plain, tuned]):
        found = only([record("fp"), record("rtn", 3, 0.4), *order])
        assert found.second_order is not None and found.second_order.method == "adaround"


def test_treatments_of_batch_norms_are_places_of_their_own(record: Make) -> None:
    found = outcomes(
        [
            record("fp"),
            record("rtn", 3, 0.4),
            record("rtn", 3, 0.2, options={"bn": "recalibrate"}),
            record("ste_qat", 3, 0.1, options={"bn_training": "update"}),
        ]
    )
    recalibrated = (*KEPT[:2], "recalibrate", 0)
    assert set(found) == {(KEPT, 3), (recalibrated, 3)}
    rounded = {place[2]: one.rtn for (place, _), one in found.items()}
    assert rounded["keep"] is not None and rounded["keep"].excess == pytest.approx(0.4)
    assert rounded["recalibrate"] is not None and rounded["recalibrate"].excess == pytest.approx(0.2)
    # A training that updates them is held beside either rounding.
    assert all(one.qat is not None for one in found.values())


def test_what_became_of_batch_norms_is_what_the_record_says(record: Make) -> None:
    folded = record("rtn", 3, 0.4, facts={"chance_loss": 6.9, "bn": "recalibrate"})
    assert set(outcomes([record("fp"), folded])) == {((*KEPT[:2], "recalibrate", 0), 3)}


def test_what_is_no_evidence_is_left_out(record: Make, margin_record: Make) -> None:
    full, rounded = record("fp"), record("rtn", 3, 0.4)
    assert outcomes([rounded]) == {}
    assert outcomes([record("fp", seed=1), rounded]) == {}
    assert outcomes([full, record("rtn", 3, status="failed", metrics={}, documents=[])]) == {}
    assert outcomes([full, margin_record(3, [0.1])]) == {}
    other = record("rtn", 3, 0.4)
    other.documents[0].tokens += 1
    assert outcomes([full, other]) == {}
    # Without rounding there is nothing to be held beside.
    assert outcomes([full, record("ste_qat", 3, 0.1)]) == {}
    assert only([full, rounded, record("gptq", 3, status="failed", metrics={}, documents=[])]).second_order is None


def test_sources_are_merged_method_by_method() -> None:
    place = (("model", "mse", "keep", 0), 4)
    other = (("model", "mse", "keep", 0), 3)
    basin = Basin(0.05)
    first = {place: Outcome(basin, {"rtn": Measured("rtn", 0.1, 0.0, 1.0)}, 1.0)}
    second = {
        place: Outcome(basin, {"rtn": Measured("rtn", 0.2, 0.0, 1.0), "gptq": Measured("gptq", 0.3, 0.0, 1.0)}, 2.0),
        other: Outcome(basin, {}, 3.0),
    }
    found = merged(first, second)
    assert found.keys() == second.keys()
    assert {name: one.excess for name, one in found[place].methods.items()} == {"rtn": 0.1, "gptq": 0.3}

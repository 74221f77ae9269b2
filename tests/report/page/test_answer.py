"""What is said of a model and quantizer follows from its entries, and does not say more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qbench.report.page.answer import Answer, answer, map_rows
from qbench.report.run import Run
from qbench.store.record import Cost, Record

MakeRun = Callable[..., Run]
MakeRecord = Callable[..., Record]
SEEDS = range(3)


@pytest.fixture
def ask(make_run: MakeRun) -> Callable[..., Answer]:
    """Return the answer to the excess of methods by bitwidth, the same on all seeds."""

    def asked(losses: dict[str, dict[int, float]], *others: Record, **fields: Any) -> Answer:
        cells = {f"m/fp/s{seed}": 0.0 for seed in SEEDS}
        for method, row in losses.items():
            for width, excess in row.items():
                cells |= {f"m/mse/{width}b/{method}/s{seed}": excess for seed in SEEDS}
        found = answer(make_run(cells, *others, **fields).board.groups[0])
        assert found is not None
        return found

    return asked


def needs(found: Answer) -> dict[int, str]:
    return {width: choice.qat for width, choice in found.choices.items()}


def test_ptq_is_enough_as_long_as_one_method_is_inside(ask: Callable[..., Answer]) -> None:
    found = ask({"rtn": {4: 0.01, 3: 0.2, 2: 2.0}, "gptq": {4: 0.01, 3: 0.02, 2: 1.0}, "ste": {3: 0.01, 2: 0.02}})
    assert needs(found) == {4: "no", 3: "no", 2: "yes"}
    assert found.sentence.startswith("PTQ is enough down to 3 bits: gptq (D +.020")
    assert "At 2 bits no PTQ method is inside and QAT is: ste (D +.020" in found.sentence


def test_of_methods_inside_the_cheapest_is_chosen(ask: Callable[..., Answer], make_record: MakeRecord) -> None:
    # rtn takes .5 s like gptq: the name decides; ste takes 40 s.
    found = ask({"gptq": {4: 0.02}, "rtn": {4: 0.03}, "ste": {4: 0.0}})
    assert found.choices[4].entry is not None
    assert found.choices[4].entry.method == "gptq"
    assert not found.choices[4].trained


def test_where_nothing_is_inside_the_nearest_is_named_with_its_regime(ask: Callable[..., Answer]) -> None:
    found = ask({"rtn": {2: 2.0}, "gptq": {2: 1.0}, "ste": {2: 0.3}})
    assert needs(found) == {2: "helps"}
    assert found.choices[2].trained
    assert found.sentence.startswith(
        "At 2 bits nothing is inside on all seeds, and of what was asked QAT comes nearest: ste (D +.300, 40 s, grey)"
    )
    worse = ask({"rtn": {2: 2.0}, "gptq": {2: 0.2}, "ste": {2: 0.3}})
    assert needs(worse) == {2: "no gain"}
    assert "gptq (D +.200" in worse.sentence


def test_an_ablation_is_neither_ptq_nor_qat(ask: Callable[..., Answer], make_record: MakeRecord) -> None:
    cost = make_record("m/mse/2b/ste/s0").cost
    ablations = [make_record(f"m/mse/2b/latent_grad/s{seed}", 0.0, cost=cost) for seed in SEEDS]
    assert needs(ask({"rtn": {2: 2.0}}, *ablations)) == {2: "not run"}


def test_what_is_missing_is_not_taken_for_a_failure(ask: Callable[..., Answer]) -> None:
    gap = {"model": "m", "quantizer": "mse", "bits": 2, "method": "gptq", "seed": 0}
    found = ask({"rtn": {2: 2.0}, "ste": {2: 0.01}}, expected=[gap])
    assert needs(found) == {2: "unknown"}
    assert found.choices[2].missing == 1
    assert "not known yet whether PTQ is enough" in found.sentence
    assert found.sentence.endswith("; 1 method incomplete.")


def test_what_is_left_out_is_not_asked_for(ask: Callable[..., Answer]) -> None:
    gap = {"model": "m", "quantizer": "mse", "bits": 2, "method": "gptq", "seed": 0, "skip": "no such grid"}
    assert needs(ask({"rtn": {4: 0.01}, "ste": {4: 0.01}}, expected=[gap])) == {4: "no"}


def test_nothing_complete_is_nothing_said(ask: Callable[..., Answer], make_record: MakeRecord) -> None:
    failed = [make_record(f"m/mse/2b/rtn/s{seed}", status="failed", reason="no room") for seed in SEEDS]
    found = ask({}, *failed)
    assert needs(found) == {2: "unknown"}
    assert found.sentence == "At 2 bits nothing can be said yet: seeds are missing or failed."


def test_a_layer_that_fell_back_is_not_inside(ask: Callable[..., Answer], make_record: MakeRecord) -> None:
    fallen = [make_record(f"m/mse/4b/gptq/s{seed}", 0.0, fallback="rtn: singular") for seed in SEEDS]
    found = ask({"ste": {4: 0.01}}, *fallen)
    assert needs(found) == {4: "yes"}
    assert found.choices[4].entry is not None
    assert found.choices[4].entry.method == "ste"


def test_seeds_that_disagree_are_not_inside(make_run: MakeRun) -> None:
    cells = {f"m/fp/s{seed}": 0.0 for seed in SEEDS}
    cells |= {f"m/mse/3b/rtn/s{seed}": 0.2 if seed else 0.0 for seed in SEEDS}
    found = answer(make_run(cells).board.groups[0])
    assert found is not None
    assert needs(found) == {3: "not run"}
    assert "grey 2/3" in found.sentence


def test_what_only_other_grids_were_asked_about_is_told(make_run: MakeRun) -> None:
    cells = {"m/fp/s0": 0.0, "m/mse/2b/rtn/s0": 2.0, "m/mse/2b/brecq[x=1]/s0": 1.0, "m/absmax/2b/rtn/s0": 2.0}
    cells |= {"m/lattice[step=1]/8b/gptq/s0": 1.0, "other/mse/2b/qubo/s0": 1.0, "other/fp/s0": 0.0}
    groups = make_run(cells).board.groups
    told = {group.title: answer(group, groups) for group in groups}
    assert told["m/lattice[step=1]"] is None
    found = told["m/absmax"], told["m/mse"]
    assert found[0] is not None and found[0].sentence.endswith(" Not asked on this grid: brecq.")
    assert found[1] is not None and "Not asked" not in found[1].sentence


def test_the_best_of_several_settings_is_called_that(ask: Callable[..., Answer]) -> None:
    found = ask({"rtn": {2: 2.0}, "ste[rate=1]": {2: 0.4}, "ste[rate=2]": {2: 0.3}, "ste[rate=3]": {2: 0.5}})
    assert found.choices[2].settings == 3
    assert "ste[rate=2] (D +.300, 40 s, grey, best of 3 settings)" in found.sentence


def test_a_map_of_many_rows_shows_the_plainest_of_each_method(make_run: MakeRun, make_record: MakeRecord) -> None:
    labels = ["rtn", *(f"ste[rate={at}]" for at in range(15)), "ste"]
    cells = {"m/fp/s0": 0.0, **{f"m/mse/2b/{label}/s0": 0.5 for label in labels}}
    ablation = make_record("m/mse/2b/latent_grad/s0", 0.5, cost=Cost(train_tokens=1))
    (group,) = make_run(cells, ablation).board.groups
    assert list(map_rows(group)) == ["rtn", "ste"]

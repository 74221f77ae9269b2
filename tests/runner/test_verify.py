"""Which stored cells are drawn, and when what comes out again counts as the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.runner.identity import PlannedCell, identify
from qbench.runner.verify import by_threads, draw, judge, plan_again
from qbench.store.folder import RunFolder
from qbench.store.record import DocumentLosses, LayerRow, Record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
GROUND = {"device": "cpu", "torch": "2", "threads": 1, "cpu_capability": "AVX2"}


def record(**changes: Any) -> Record:
    base: dict[str, Any] = {
        "cell_id": "a" * 64,
        "key": {},
        "axes": {"model": "m", "quantizer": "q", "bits": 4, "method": "rtn", "seed": 0},
        "suite": "s",
        "status": "ok",
        "metrics": {"loss/toy": 1.5, "weight_sqnr_db": 20.0},
        "documents": [DocumentLosses(document="d", tokens=2, loss_sum=3.0)],
        "layers": [LayerRow(name="l", shape=(2, 2), weight_error=0.1, output_error=0.1, levels=4)],
        "effective_bits": 4.25,
        "traces": {"train_loss": [1.0, 0.5]},
        "weights_sha256": "b" * 64,
        "environment": GROUND,
        "started": "2026-01-01",
        "ended": "2026-01-02",
    }
    return Record.model_validate(base | changes)


def moved(by: float) -> dict[str, float]:
    return {"loss/toy": 1.5 + by, "weight_sqnr_db": 20.0}


OTHER = {**GROUND, "threads": 2}
CHANGES: dict[str, dict[str, Any]] = {
    "a metric's last bit": {"metrics": moved(2**-52)},
    "a metric that is gone": {"metrics": {"loss/toy": 1.5}},
    "a document": {"documents": [DocumentLosses(document="d", tokens=2, loss_sum=3.0000000000000004)]},
    "a layer": {"layers": []},
    "bits": {"effective_bits": 4.5},
    "a trace": {"traces": {"train_loss": [1.0, 0.25]}},
    "weights": {"weights_sha256": "c" * 64},
}


def test_the_same_bytes() -> None:
    again = record(ended="2027-01-01", suite="other", cost={"method_seconds": 9.0})
    found = judge(record(), again)
    assert (found.outcome, found.red, found.change, found.differences) == ("same bytes", False, 0.0, ())


@pytest.mark.parametrize("change", list(CHANGES))
def test_on_equal_ground_every_bit_counts(change: str) -> None:
    found = judge(record(), record(**CHANGES[change]))
    assert (found.outcome, found.red, found.ground) == ("differs", True, {})
    assert len(found.differences) == 1


@pytest.mark.parametrize(
    ("by", "outcome"), [(0.0199, "within bound"), (-0.0199, "within bound"), (0.021, "differs"), (-0.021, "differs")]
)
def test_on_other_ground_the_loss_has_a_bound_to_both_sides(by: float, outcome: str) -> None:
    found = judge(record(), record(metrics=moved(by), environment=OTHER))
    assert (found.outcome, found.red) == (outcome, outcome == "differs")
    assert found.ground == {"threads": ("1", "2")}
    assert found.change == pytest.approx(by)
    assert found.bound == 0.02
    assert judge(record(), record(metrics=moved(by), environment=OTHER), bound=abs(by) + 1e-6).outcome == "within bound"


def test_other_weights_with_a_loss_that_stays_are_within_the_bound_on_other_ground_only() -> None:
    assert judge(record(), record(weights_sha256="c" * 64, environment=OTHER)).outcome == "within bound"
    assert judge(record(), record(weights_sha256="c" * 64)).outcome == "differs"


@pytest.mark.parametrize("ground", [GROUND, OTHER])
def test_a_loss_that_is_no_number_is_beyond_every_bound(ground: dict[str, Any]) -> None:
    found = judge(record(), record(metrics={"loss/toy": float("nan"), "weight_sqnr_db": 20.0}, environment=ground))
    assert found.outcome == "differs"


def test_a_cell_that_does_not_run_again_is_red() -> None:
    found = judge(record(), record(status="failed", reason="no luck"))
    assert (found.outcome, found.red, found.reason) == ("failed", True, "failed: no luck")


def test_without_a_loss_there_is_no_bound_on_other_ground() -> None:
    probe, other = record(metrics={"radius": 1.0}), record(metrics={"radius": 1.1}, environment=OTHER)
    assert (judge(probe, other).outcome, judge(probe, other).red) == ("no bound", False)
    assert judge(probe, record(metrics={"radius": 1.1})).outcome == "differs"


@pytest.fixture
def cells(toy: MakeCell) -> list[PlannedCell]:
    return [
        identify(toy(method, bits=bits, seed=seed))
        for seed in (0, 1)
        for bits in (2, 3, 4)
        for method in ("rtn", "falls_back")
    ]


def test_a_draw_depends_on_its_seed_and_the_suite_alone(cells: list[PlannedCell]) -> None:
    drawn = draw(cells, 4, "s", 0)
    assert len({one.cell_id for one in drawn}) == 4
    assert drawn == [one for one in cells if one in drawn], "their order is kept"
    assert {one.cell_id for one in draw(cells[::-1], 4, "s", 0)} == {one.cell_id for one in drawn}
    others = [draw(cells, 4, "s", seed) for seed in range(1, 6)] + [draw(cells, 4, "t", 0)]
    assert any(other != drawn for other in others[:-1])
    seen = {one.cell_id for seed in range(60) for one in draw(cells, 1, "s", seed)}
    assert seen == {one.cell_id for one in cells}, "no cell is out of reach"


@pytest.mark.parametrize("count", [None, 12, 99])
def test_all_are_drawn_where_there_are_no_more(cells: list[PlannedCell], count: int | None) -> None:
    assert draw(cells, count, "s") == cells


def test_cells_go_by_the_threads_they_were_run_with(cells: list[PlannedCell]) -> None:
    records = {one.cell_id: record(environment={"threads": 1 + index % 2}) for index, one in enumerate(cells)}
    found = by_threads(cells, records)
    assert {threads: len(group) for threads, group in found.items()} == {1: 6, 2: 6}


def test_a_probe_reads_the_stored_weights(tmp_path: Path, toy: MakeCell, toys: ModuleType) -> None:
    point = toy("rtn")
    probe = replace(point, method=None, probe=toys.Reader(name="reader"), points=(point,))
    planned, read = identify(probe), identify(point)
    source, target = RunFolder(tmp_path / "stored"), RunFolder(tmp_path / "again")
    source.weights_path("").parent.mkdir(parents=True)
    source.weights_path(read.cell_id).write_bytes(b"weights")
    before = sorted(tmp_path.joinpath("stored").rglob("*"))
    plan = plan_again([planned], source, target)
    assert plan.todo == [planned]
    assert target.weights_path(read.cell_id).read_bytes() == b"weights"
    target.weights_path(read.cell_id).write_bytes(b"others")
    assert source.weights_path(read.cell_id).read_bytes() == b"weights"
    assert sorted(tmp_path.joinpath("stored").rglob("*")) == before

"""What is planned, what is stored, and what a failed full-precision cell keeps from running."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.errors import StoreError
from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.planning import plan
from qbench.runner.run import run
from qbench.runner.session import Session
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


class InThisProcess:
    """An executor that is quick, and remembers what it was given."""

    def __init__(self) -> None:
        self.session, self.executed = Session("cpu"), list[str]()

    def run(
        self, cells: Iterable[PlannedCell | None], suite: str, weights_path: Callable[[str], Path], begun: object
    ) -> Iterator[Record]:
        for one in cells:
            assert one is not None, "with one cell at a time, the record that a cell waits for is always there"
            self.executed.append(one.cell.label())
            points = {label: weights_path(cell_id) for label, cell_id in one.points.items()}
            yield execute(one, suite, self.session, weights_path(one.cell_id), points)


@pytest.fixture
def executor() -> InThisProcess:
    return InThisProcess()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "toy")


@pytest.fixture
def go(folder: RunFolder, executor: InThisProcess) -> Callable[[list[Cell]], dict[str, Record]]:
    def go(cells: list[Cell]) -> dict[str, Record]:
        return run(plan(cells, folder), "toy", folder, executor, lambda record: None)  # type: ignore[arg-type]

    return go


Go = Callable[[list[Cell]], dict[str, Record]]


def labels(cells: Sequence[PlannedCell]) -> list[str]:
    return [one.cell.label() for one in cells]


def test_full_precision_comes_first_and_cells_of_one_model_together(folder: RunFolder, toy: MakeCell) -> None:
    cells = [
        toy("rtn", seed=1),
        toy("rtn"),
        toy(seed=1),
        toy("falls_back", seed=1),
        toy(),
        toy("rtn", bits=2),
    ]
    found = plan(cells, folder)
    order = [(one.cell.is_fp, one.cell.seed) for one in found.todo]
    assert order == [(True, 1), (True, 0), (False, 1), (False, 1), (False, 0), (False, 0)]
    assert found.stored == {} and found.skipped == [] and found.corrupt == {}


def test_a_skipped_cell_is_not_planned(folder: RunFolder, toy: MakeCell) -> None:
    skipped = replace(toy("rtn"), skip="takes too long")
    found = plan([toy(), skipped], folder)
    assert labels(found.todo) == ["toy/fp/s0"]
    assert found.skipped == [skipped]


def test_what_is_stored_is_not_run_again(folder: RunFolder, toy: MakeCell, go: Go, executor: InThisProcess) -> None:
    cells = [toy(), toy("rtn"), toy("falls_back")]
    first = go(cells)
    assert [record.status for record in first.values()] == ["ok"] * 3
    executor.executed.clear()
    assert go(cells) == first
    assert executor.executed == []
    assert plan(cells, folder).todo == []
    assert labels(plan(cells, folder, fresh=True).todo) == [cell.label() for cell in cells]
    assert labels(plan([*cells, toy("rtn", bits=3)], folder).todo) == ["toy/absmax[per_channel]/3b/rtn/s0"]


def test_what_failed_is_run_again(toy: MakeCell, toys: ModuleType, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [toy(), toy("rtn"), toy("raises"), toy("gives_nan")]
    first = {record.label: record for record in go(cells).values()}
    assert [record.status for record in first.values()] == ["ok", "ok", "failed", "diverged"]
    monkeypatch.setattr(toys.Raises, "solve", toys.RoundToNearest.solve)
    second = {record.label: record for record in go(cells).values()}
    assert [second[label].status for label in first] == ["ok", "ok", "ok", "diverged"]


def test_a_changed_option_is_another_cell(toy: MakeCell, go: Go, executor: InThisProcess, folder: RunFolder) -> None:
    go([toy(), toy("rtn")])
    executor.executed.clear()
    go([toy(pause=0.001), toy("rtn", pause=0.001)])
    assert len(executor.executed) == 2
    assert len(folder.read_all()) == 4


def test_a_failed_full_precision_cell_keeps_its_own_row_from_running(
    toy: MakeCell, go: Go, executor: InThisProcess, folder: RunFolder
) -> None:
    broken = [toy(seed=seed, broken_seed=0) for seed in (0, 1)]
    cells = [*broken, *(toy(method, seed=seed, broken_seed=0) for method in ("rtn", "falls_back") for seed in (0, 1))]
    found = {record.label: record for record in go(cells).values()}
    for label, record in found.items():
        fp, seed = "/fp/" in label, record.axes["seed"]
        assert record.status == ("ok" if seed == 1 else "failed" if fp else "skipped"), label
        if record.status == "skipped":
            assert record.reason == "its full-precision cell failed: RuntimeError: the weights are gone"
            assert label not in executor.executed
    assert {record.label: record for record in folder.read_all().values()} == found
    # Neither the gate nor those behind it count as done.
    assert len(plan(cells, folder).todo) == 3


def test_a_cell_waits_for_its_own_full_precision_cell_only(toy: MakeCell, folder: RunFolder) -> None:
    cells = [toy(seed=0), toy(seed=1), toy("rtn", seed=0), toy("rtn", seed=1)]
    asked: list[str | None] = []

    class SlowAtSeedZero(InThisProcess):
        def run(self, cells: Any, suite: str, weights_path: Any, begun: Any) -> Iterator[Record]:
            def take() -> PlannedCell | None:
                one = next(cells, None)
                asked.append(None if one is None else one.cell.label())
                return one  # type: ignore[no-any-return]

            slow, quick = take(), take()
            assert slow is not None and quick is not None
            assert take() is None  # neither row is open
            yield execute(quick, suite, self.session, weights_path(quick.cell_id))
            behind_quick = take()
            assert behind_quick is not None
            assert take() is None  # the row of seed 0 is still closed
            yield execute(slow, suite, self.session, weights_path(slow.cell_id))
            for one in (behind_quick, take()):
                assert one is not None
                yield execute(one, suite, self.session, weights_path(one.cell_id))
            assert take() is None

    found = run(plan(cells, folder), "toy", folder, SlowAtSeedZero(), lambda record: None)  # type: ignore[arg-type]
    assert asked == [
        "toy/fp/s0",
        "toy/fp/s1",
        None,
        "toy/absmax[per_channel]/4b/rtn/s1",
        None,
        "toy/absmax[per_channel]/4b/rtn/s0",
        None,
    ]
    assert [record.status for record in found.values()] == ["ok"] * 4


def test_a_stored_full_precision_cell_opens_its_row(toy: MakeCell, go: Go, executor: InThisProcess) -> None:
    go([toy()])
    executor.executed.clear()
    found = go([toy(), toy("rtn")])
    assert [record.status for record in found.values()] == ["ok", "ok"]
    assert executor.executed == ["toy/absmax[per_channel]/4b/rtn/s0"]


def test_a_record_is_on_disk_before_anyone_hears_of_it(
    toy: MakeCell, folder: RunFolder, executor: InThisProcess
) -> None:
    heard: list[str] = []

    def done(record: Record) -> None:
        assert folder.read(record.cell_id) == record
        assert (record.weights_sha256 is None) == (not folder.weights_path(record.cell_id).exists())
        heard.append(record.label)

    cells = [toy(), toy("rtn"), toy("raises"), toy(seed=3, broken_seed=3), toy("rtn", seed=3, broken_seed=3)]
    run(plan(cells, folder), "toy", folder, executor, done)  # type: ignore[arg-type]
    assert sorted(heard) == sorted(cell.label() for cell in cells)


@pytest.mark.parametrize("damage", ["half", "empty", "another"])
def test_a_corrupt_record_is_told_of_and_its_cell_run_again(
    toy: MakeCell, go: Go, folder: RunFolder, executor: InThisProcess, damage: str
) -> None:
    cells = [toy(), toy("rtn")]
    before = go(cells)
    hurt = folder.record_path(identify(cells[1]).cell_id)
    text = {
        "half": hurt.read_text()[:300],
        "empty": "",
        "another": folder.record_path(identify(cells[0]).cell_id).read_text(),
    }
    hurt.write_text(text[damage])
    found = plan(cells, folder)
    assert labels(found.todo) == [cells[1].label()]
    assert list(found.corrupt) == [hurt] and found.corrupt[hurt]
    executor.executed.clear()
    after = go(cells)
    assert executor.executed == [cells[1].label()]
    for cell_id, record in before.items():
        assert after[cell_id].metrics == record.metrics
        assert after[cell_id].weights_sha256 == record.weights_sha256
    assert plan(cells, folder).corrupt == {}


def test_a_record_of_a_newer_qbench_is_never_run_over(toy: MakeCell, go: Go, folder: RunFolder) -> None:
    (record,) = go([toy()]).values()
    path = folder.record_path(record.cell_id)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 999}))
    with pytest.raises(StoreError, match="written by a newer qbench"):
        plan([toy()], folder)


def test_a_kill_between_weights_and_record_costs_that_cell_only(
    toy: MakeCell, go: Go, folder: RunFolder, executor: InThisProcess
) -> None:
    cells = [toy(), toy("rtn"), toy("rtn", bits=2)]
    before = go(cells)
    last = identify(cells[2]).cell_id
    folder.record_path(last).unlink()
    folder.weights_path(last).write_bytes(b"half")
    executor.executed.clear()
    after = go(cells)
    assert executor.executed == [cells[2].label()]
    assert after[last].weights_sha256 == before[last].weights_sha256
    assert folder.weights_path(last).read_bytes() != b"half"

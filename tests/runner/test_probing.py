"""Probes and trajectories as cells: what they read, what they wait for, and that nobody notices them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.methods.ste_qat import StraightThroughQAT
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.local import LocalExecutor
from qbench.runner.planning import plan
from qbench.runner.run import run
from qbench.runner.session import Session
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
Go = Callable[[list[Cell]], dict[str, Record]]

QAT = StraightThroughQAT(name="ste_qat", steps=6, batch_size=4, learning_rate=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs")


@pytest.fixture
def go(folder: RunFolder) -> Go:
    """Return a function that runs cells in two processes and gives their records by label."""

    def go(cells: list[Cell]) -> dict[str, Record]:
        executor = LocalExecutor(2, "cpu")
        found = run(plan(cells, folder), "toy", folder, executor, lambda record: None)
        return {record.label: record for record in found.values()}

    return go


@pytest.fixture
def probe(toys: ModuleType, toy: MakeCell) -> MakeCell:
    """Return a function that makes the cell of a probe that reads other cells."""

    def make(*points: Cell, kind: str = "Reader", **options: Any) -> Cell:
        spec = getattr(toys, kind)(name="reader", **options)
        return replace(toy("rtn"), method=None, probe=spec, points=points)

    return make


def test_a_probe_reads_what_was_deployed(toy: MakeCell, probe: MakeCell, go: Go) -> None:
    cells = [probe(toy("rtn"), toy(QAT)), toy(), toy("rtn"), toy(QAT)]  # before what it reads: it has to wait
    found = go(cells)
    record, fp = found["toy/absmax[per_channel]/4b/reader/s0"], found["toy/fp/s0"]
    assert record.status == "ok" and record.is_probe and not fp.is_probe
    for method in ("rtn", QAT.label()):
        own = found[f"toy/absmax[per_channel]/4b/{method}/s0"]
        assert own.loss is not None and fp.loss is not None
        assert record.metrics[f"{method}/excess"] == pytest.approx(own.loss - fp.loss, rel=1e-5)
        assert record.key["points"][method] == own.cell_id
    assert record.metrics["rounded"] == pytest.approx(record.metrics["rtn/excess"], rel=1e-6)
    assert record.traces == {"said": [1.0]}
    assert record.weights_sha256 is None and record.layers == []


def test_a_probe_is_stored_as_other_cells_are(toy: MakeCell, probe: MakeCell, go: Go, folder: RunFolder) -> None:
    cells = [toy(), toy("rtn"), probe(toy("rtn"))]
    go(cells)
    assert plan(cells, folder).todo == []
    assert [one.cell.label() for one in plan([*cells[:2], probe(toy("rtn"), says=2.0)], folder).todo] == [
        "toy/absmax[per_channel]/4b/reader[says=2]/s0"
    ]


def test_other_points_are_another_probe(toy: MakeCell, probe: MakeCell) -> None:
    found = {
        identify(one).cell_id
        for one in (probe(), probe(toy("rtn")), probe(toy(QAT)), probe(replace(toy(QAT), trajectory=2)))
    }
    assert len(found) == 4


@pytest.mark.parametrize(
    ("method", "said"), [("raises", "failed: RuntimeError"), ("falls_back", "fell back: rtn: dead")]
)
def test_a_probe_of_weights_that_are_no_evidence_is_not_run(
    toy: MakeCell, probe: MakeCell, go: Go, method: str, said: str
) -> None:
    found = go([toy(), toy(method), probe(toy(method))])
    record = found["toy/absmax[per_channel]/4b/reader/s0"]
    assert record.status == "skipped"
    assert record.reason is not None and f"its cell toy/absmax[per_channel]/4b/{method}/s0 {said}" in record.reason


def test_a_number_that_is_not_finite_is_told(toy: MakeCell, probe: MakeCell, go: Go) -> None:
    record = go([toy(), toy("rtn"), probe(toy("rtn"), kind="Poisoned")])["toy/absmax[per_channel]/4b/reader/s0"]
    assert record.status == "diverged" and record.reason == "the probe found a value that is not finite in said"


def test_training_goes_on_as_if_nobody_looked(toy: MakeCell, tmp_path: Path) -> None:
    records = {}
    for count in (0, 20):
        cell = replace(toy(QAT), trajectory=count)
        records[count] = execute(identify(cell), "test", Session("cpu"), tmp_path / f"{count}.safetensors")
    assert records[0].weights_sha256 == records[20].weights_sha256
    assert records[0].metrics == records[20].metrics
    assert records[0].traces == {"train_loss": records[20].traces["train_loss"]}
    assert records[0].cell_id != records[20].cell_id


def test_a_trajectory_begins_at_rounding_to_nearest_and_ends_at_what_is_deployed(toy: MakeCell, tmp_path: Path) -> None:
    session = Session("cpu")

    def ran(cell: Cell) -> Record:
        return execute(identify(cell), "test", session, tmp_path / "weights.safetensors")

    fp, rounded, trained = ran(toy()), ran(toy("rtn")), ran(replace(toy(QAT), trajectory=20))
    curves = {name.removeprefix("trajectory/"): curve for name, curve in trained.traces.items()}
    assert curves.pop("train_loss")
    assert set(curves) == {"step", "deployed", "deployed_se", "latent", "latent_se", "train", "train_se"}
    assert curves["step"] == list(range(7))
    assert fp.loss is not None and rounded.loss is not None and trained.loss is not None
    assert curves["deployed"][0] == pytest.approx(rounded.loss - fp.loss, rel=1e-5)
    assert curves["deployed"][-1] == pytest.approx(trained.loss - fp.loss, rel=1e-5)
    assert curves["latent"][0] == 0 and curves["latent"][-1] != 0
    assert all(error > 0 for error in curves["deployed_se"])


def test_a_learning_rate_of_0_stays_where_it_is(toy: MakeCell, tmp_path: Path) -> None:
    cell = replace(toy(QAT.model_copy(update={"learning_rate": 0.0})), trajectory=20)
    curves = execute(identify(cell), "test", Session("cpu"), tmp_path / "weights.safetensors").traces
    for name in ("deployed", "latent", "train"):
        assert len(set(curves[f"trajectory/{name}"])) == 1, name

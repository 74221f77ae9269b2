"""What can be run again of a folder, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.session import Session
from qbench.runner.soundness import survey
from qbench.store.folder import RunFolder
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


@pytest.fixture
def cells(tmp_path: Path, toy: MakeCell, toys: ModuleType) -> dict[str, PlannedCell]:
    """Return stored cells of three kinds: a method's, full precision, and a probe that reads what the method made."""
    point = toy("rtn")
    probe = replace(point, method=None, probe=toys.Reader(name="reader"), points=(point,))
    found = {"rtn": identify(point), "fp": identify(toy()), "probe": identify(probe)}
    folder, session = RunFolder(tmp_path), Session("cpu")
    for one in found.values():
        record = execute(one, "s", session, folder.weights_path(one.cell_id))
        folder.write(record)
        assert record.status == "ok", record.reason
    return found


def states(cells: dict[str, PlannedCell], path: Path) -> dict[str, str]:
    names = {one.cell_id: name for name, one in cells.items()}
    return {names[one.cell_id]: one.state for one in survey(list(cells.values()), RunFolder(path)).unsound}


def test_what_a_run_wrote_is_sound(tmp_path: Path, cells: dict[str, PlannedCell]) -> None:
    found = survey(list(cells.values()), RunFolder(tmp_path))
    assert {one.cell_id for one in found.sound} == set(found.records) == {one.cell_id for one in cells.values()}
    assert (found.unsound, found.absent, found.ended_badly, found.strays) == ([], [], {}, {})


def test_a_probe_is_as_sound_as_the_weights_it_reads(tmp_path: Path, cells: dict[str, PlannedCell]) -> None:
    folder = RunFolder(tmp_path)
    weights = folder.weights_path(cells["rtn"].cell_id)
    weights.write_bytes(weights.read_bytes() + b" ")
    assert states(cells, tmp_path) == {"rtn": "other weights", "probe": "other points"}
    weights.unlink()
    assert states(cells, tmp_path) == {"rtn": "without weights", "probe": "without points"}
    (told,) = survey([cells["probe"]], folder).unsound
    assert told.reason == f"{weights}, which it reads for rtn, is not there"


def test_cells_without_a_record_full_precision_first(tmp_path: Path, cells: dict[str, PlannedCell]) -> None:
    for name in ("rtn", "fp"):
        RunFolder(tmp_path).record_path(cells[name].cell_id).unlink()
    found = survey(list(cells.values()), RunFolder(tmp_path))
    assert found.absent == [cells["fp"].cell.label(), cells["rtn"].cell.label()]
    assert found.unsound == []


def test_a_loss_that_is_not_that_of_its_documents(tmp_path: Path, cells: dict[str, PlannedCell]) -> None:
    folder = RunFolder(tmp_path)
    record = folder.read(cells["fp"].cell_id)
    assert record is not None and record.loss is not None and record.loss_key is not None
    folder.write(record.model_copy(update={"metrics": {record.loss_key: record.loss * (1 + 1e-9)}}))
    assert states(cells, tmp_path) == {}, "rounding"
    folder.write(record.model_copy(update={"metrics": {record.loss_key: record.loss * (1 + 1e-5)}}))
    assert states(cells, tmp_path) == {"fp": "contradicts itself"}


@pytest.mark.parametrize("part", ["key", "axes"])
def test_a_record_that_says_it_is_another_cells(tmp_path: Path, cells: dict[str, PlannedCell], part: str) -> None:
    folder = RunFolder(tmp_path)
    record = folder.read(cells["rtn"].cell_id)
    assert record is not None
    folder.write(record.model_copy(update={part: {**getattr(record, part), "bits": 2}}))
    (told,) = survey([cells["rtn"]], folder).unsound
    assert told.state == "other cell"
    assert f"holds another cell's {part}" in told.reason

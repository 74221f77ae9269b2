"""A plan holds records in short, and is the same whether an index spared reading them or not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qbench.runner import identity
from qbench.runner.identity import identify, identify_all
from qbench.runner.planning import plan
from qbench.store import index
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.store.summary import Summary
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def cells(toy: MakeCell) -> list[Cell]:
    return [toy(method, seed=seed) for seed in (0, 1) for method in (None, "rtn", "raises")]


def store(folder: RunFolder, cell: Cell, **fields: object) -> Record:
    """Write the record of a cell, and its weights where it has some."""
    one = identify(cell)
    filled: dict[str, object] = {"status": "ok"}
    if cell.quantizer is not None:
        path = folder.weights_path(one.cell_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.cell_id.encode())
        filled["weights_sha256"] = hashlib.sha256(one.cell_id.encode()).hexdigest()
    record = Record(cell_id=one.cell_id, key=one.key, axes=cell.axes(), suite="toy", **(filled | fields))  # type: ignore[arg-type]
    folder.write(record)
    return record


def test_it_holds_what_is_stored_in_short(folder: RunFolder, cells: list[Cell]) -> None:
    sound = [store(folder, cell) for cell in cells[:2]]
    failed = store(folder, cells[2], status="failed", reason="no luck")
    found = plan(cells, folder)
    assert found.stored == {record.cell_id: Summary.of(record) for record in sound}
    assert {one.cell_id for one in found.held} == {record.cell_id for record in (*sound, failed)}
    assert [one.cell.label() for one in found.todo] == [cells[at].label() for at in (3, 2, 4, 5)]
    assert plan(cells, folder, fresh=True).stored == {} and len(plan(cells, folder, fresh=True).todo) == 6


def test_it_is_the_same_without_an_index(folder: RunFolder, cells: list[Cell]) -> None:
    for cell in cells[:4]:
        store(folder, cell)
    folder.weights_path(identify(cells[1]).cell_id).write_bytes(b"others")
    folder.record_path(identify(cells[3]).cell_id).write_text("{")
    with_index = plan(cells, folder)
    (folder.path / index.NAME).unlink()
    assert plan(cells, folder) == with_index
    assert [one.cell_id for one in with_index.todo] == [identify(cells[at]).cell_id for at in (3, 1, 4, 5)]
    assert list(with_index.corrupt) == [folder.record_path(identify(cells[3]).cell_id)]


def test_to_look_writes_nothing(folder: RunFolder, cells: list[Cell]) -> None:
    for cell in cells[:4]:
        store(folder, cell)
    (folder.path / index.NAME).unlink()
    before = sorted(folder.path.rglob("*"))
    plan(cells, folder)
    assert sorted(folder.path.rglob("*")) == before


def test_cells_have_the_same_identity_together_and_alone(cells: list[Cell], toy: MakeCell) -> None:
    points = (cells[1], cells[2])
    probe = identity.Spec(name="probe")
    cells = [
        *cells,
        replace(cells[1], metrics=("loss", "bits_per_byte")),
        replace(cells[1], trajectory=5),
        replace(cells[1], bits=2),
        replace(cells[1], method=None, probe=probe, points=points),
        replace(cells[1], skip="takes too long"),
        toy("rtn"),
    ]
    together = list(identify_all(cells))
    assert together == [identify(cell) for cell in cells]
    assert together[9].points == {"rtn": together[1].cell_id, "raises": together[2].cell_id}
    assert len({one.cell_id for one in together}) == len(cells) - 2  # the last two are the second one


def test_keys_share_what_they_have_in_common(cells: list[Cell]) -> None:
    first, *others = identify_all(cells)
    for other in others:
        assert other.key is not first.key
        for part in ("model", "runner", "metrics"):
            assert other.key[part] is first.key[part]

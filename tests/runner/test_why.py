"""What a folder holds for a cell is told in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qbench.methods.gptq import GPTQ
from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.session import Session
from qbench.runner.why import explain, key_changes
from qbench.store.folder import RunFolder
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def store(folder: RunFolder, planned: PlannedCell, **changes: Any) -> None:
    record = execute(planned, "s", Session("cpu"), folder.weights_path(planned.cell_id))
    folder.write(record.model_copy(update=changes))


def states(planned: PlannedCell, folder: RunFolder) -> list[str]:
    return [one.state for one in explain(planned, folder)]


def test_a_hit(folder: RunFolder, toy: MakeCell) -> None:
    planned = identify(toy("rtn"))
    assert explain(planned, folder) == []
    store(folder, planned)
    assert states(planned, folder) == ["hit"]
    full = identify(toy())
    store(folder, full)
    assert states(full, folder) == ["hit"], "full precision has no weights of its own"


def test_why_a_record_of_its_own_does_not_count(folder: RunFolder, toy: MakeCell) -> None:
    planned = identify(toy("rtn"))
    store(folder, planned)
    weights, record = folder.weights_path(planned.cell_id), folder.record_path(planned.cell_id)
    kept, text = weights.read_bytes(), record.read_text()
    weights.write_bytes(kept + b" ")
    (found,) = explain(planned, folder)
    assert found.state == "other weights"
    assert f"its record tells of {str(folder.read_all()[planned.cell_id].weights_sha256)[:8]}" in found.reason
    weights.unlink()
    (found,) = explain(planned, folder)
    assert (found.state, found.reason) == ("without weights", f"{weights} is not there")
    weights.write_bytes(kept)
    os.truncate(record, 40)
    (found,) = explain(planned, folder)
    assert found.state == "corrupt"
    assert found.reason.startswith(f"{record} is no record: not JSON")
    record.write_text(text)
    assert states(planned, folder) == ["hit"]
    failed = identify(toy("raises"))
    store(folder, failed)
    (found,) = explain(failed, folder)
    assert (found.state, found.reason) == ("failed", "failed: RuntimeError: no luck today")


def other(planned: PlannedCell, part: str, name: str, sha256: str) -> PlannedCell:
    """Return the cell as it was when one of its sources was another file."""
    sources = {**planned.key[part]["sources"], name: sha256}
    key = {**planned.key, part: {**planned.key[part], "sources": sources}}
    return replace(planned, key=key, cell_id=sha256)


def test_records_of_older_code_say_which_source_newest_first(folder: RunFolder, toy: MakeCell) -> None:
    planned = identify(toy("rtn"))
    for index, letter in enumerate("abc"):
        store(folder, other(planned, "method", "qbench.methods.rtn", letter * 64), ended=f"2026-01-0{index + 1}")
    found = explain(planned, folder)
    assert [one.cell_id[0] for one in found] == ["c", "b", "a"]
    own = planned.key["method"]["sources"]["qbench.methods.rtn"]
    assert [str(part) for part in found[0].parts] == [f"method.sources qbench.methods.rtn: cccccccc -> {own[:8]}"]
    store(folder, planned)
    assert states(planned, folder) == ["hit", "other key", "other key", "other key"]


def test_the_nearest_of_another_label(folder: RunFolder, toy: MakeCell) -> None:
    here = [identify(toy(GPTQ(name="gptq", percdamp=value))) for value in (0.02, 0.05)]
    for one in (
        *here,
        identify(toy("rtn")),
        identify(toy(GPTQ(name="gptq", percdamp=0.02, block_size=4), bits=3, seed=1)),
    ):
        store(folder, one)
    found = explain(identify(toy(GPTQ(name="gptq", percdamp=0.1))), folder)
    assert {one.cell_id for one in found[:2]} == {one.cell_id for one in here}
    assert {str(part) for one in found[:2] for part in one.parts} == {
        "method.options.percdamp: 0.02 -> 0.1",
        "method.options.percdamp: 0.05 -> 0.1",
    }
    assert {part.name for part in found[2].parts} >= {"bits", "seed", "data weights", "method.options.block_size"}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("stored", "today", "said"),
    [
        ({"seed": 0}, {"seed": 1}, ["seed: 0 -> 1"]),
        ({"metrics": ["loss"]}, {"metrics": ["loss", "x"]}, ["metrics: ['loss'] -> ['loss', 'x']"]),
        (
            {"data": {"text/train": "a" * 64}},
            {"data": {"text/train": "b" * 64}},
            ["data text/train: aaaaaaaa -> bbbbbbbb"],
        ),
        ({"a": {"options": {"x": True}}}, {"a": {"options": {"x": None}}}, ["a.options.x: true -> none"]),
        ({"a": {"version": 1}}, {"a": {"version": 1}, "bits": 3}, ["bits: - -> 3"]),
        ({"runner": {"qbench.x": "a" * 64}}, {"runner": {}}, ["runner qbench.x: aaaaaaaa -> -", "runner: - -> {}"]),
        ({"same": 1}, {"same": 1}, []),
    ],
)
def test_parts_in_words(stored: dict[str, Any], today: dict[str, Any], said: list[str]) -> None:
    assert sorted(str(part) for part in key_changes(stored, today)) == sorted(said)

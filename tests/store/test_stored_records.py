"""Records that stay on disk: a mapping like any other, and never older than the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.store.folder import RunFolder
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


@pytest.fixture
def folder(tmp_path: Path, make_record: MakeRecord) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    for cell_id in "cab":
        folder.write(make_record(cell_id=cell_id))
    return folder


def test_they_are_those_of_the_folder_in_the_order_that_is_asked_for(folder: RunFolder) -> None:
    found = folder.records(["b", "c", "b"])
    assert list(found) == ["b", "c"] and len(found) == 2
    assert [record.cell_id for record in found.values()] == ["b", "c"]
    assert dict(found) == {one: folder.read(one) for one in "bc"}
    assert "c" in found and "a" not in found and found.get("a") is None
    with pytest.raises(KeyError):
        found["a"]
    assert repr(found) == "<2 stored records>"


def test_they_are_equal_to_what_holds_the_same(folder: RunFolder, make_record: MakeRecord) -> None:
    found = folder.records("abc")
    assert found == folder.read_all() == found == folder.records("cba")
    assert found != folder.records("ab") and found not in ({}, ["a", "b", "c"])
    held = folder.read_all()
    folder.write(make_record(cell_id="b", status="failed", reason="no luck"))
    assert found != held
    assert found["b"].status == "failed"


def test_a_record_that_is_gone_is_not_made_up(folder: RunFolder) -> None:
    found = folder.records("abc")
    folder.record_path("b").unlink()
    with pytest.raises(KeyError):
        list(found.values())

"""What workers leave on a spool is whole or not there, and a run takes the sound records of its own cells alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from qbench import atomic
from qbench.errors import QBenchError, UnwritableError
from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.planning import plan
from qbench.runner.session import Session
from qbench.runner.spool import Spool, collect
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.store.schema import dump_record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


class Renaming(MemoryFileSystem):
    """A file system where a file is there before it is whole, as those behind ssh are."""

    protocol = "renaming"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    halves: ClassVar[list[set[str]]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("renaming://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value[: len(value) // 2])
        Renaming.halves.append({name.rpartition("/")[2] for name in self.store})
        super().pipe_file(path, value)


fsspec.register_implementation("renaming", Renaming)


@pytest.fixture(params=["folder", "memory", "renaming"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "spool")
        return
    yield f"{request.param}://spool/{tmp_path.name}"
    system = fsspec.filesystem(request.param)
    for name in system.find("/"):
        system.rm_file(name)


@dataclass(frozen=True)
class Done:
    """Cells that were executed somewhere: full precision, and two that are quantized."""

    planned: list[PlannedCell]
    records: list[Record]
    folder: RunFolder

    def leave(self, spool: Spool, change: Callable[[Record], Record] = lambda record: record) -> None:
        """Leave them on a spool as a worker does."""
        for record in self.records:
            weights = self.folder.weights_path(record.cell_id)
            spool.keep(record.cell_id, dump_record(change(record)), weights if weights.exists() else None)


@pytest.fixture(scope="module")
def done(toy: MakeCell, session: Session, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = RunFolder(tmp_path_factory.mktemp("elsewhere"))
    planned = [identify(cell) for cell in (toy(), toy("rtn"), toy("rtn", bits=2))]
    records = [execute(one, "toy", session, folder.weights_path(one.cell_id)) for one in planned]
    assert [record.status for record in records] == ["ok"] * 3
    return Done(planned, records, folder)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def files(folder: Path) -> dict[str, bytes]:
    """Return what a run keeps of its cells; the index is another's, and has times."""
    found = [*folder.glob("records/*"), *folder.glob("weights/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_what_was_left_comes_into_the_folder_as_it_was(url: str, done: Done, run: RunFolder) -> None:
    spool = Spool(url)
    done.leave(spool)
    assert spool.records() == {one.cell_id for one in done.planned}
    with run.lock():
        assert collect(spool, done.planned, run) == 3
    assert {name: data for name, data in files(run.path).items() if name.startswith("weights/")} == {
        name: data for name, data in files(done.folder.path).items() if name.startswith("weights/")
    }
    assert list(run.read_all().values()) == sorted(done.records, key=lambda record: record.cell_id)
    found = plan([one.cell for one in done.planned], run)
    assert found.todo == [] and len(found.stored) == 3
    assert spool.records() == {one.cell_id for one in done.planned}, "all of it stays there"


def test_to_take_it_again_changes_nothing(url: str, done: Done, run: RunFolder) -> None:
    done.leave(Spool(url))
    with run.lock():
        collect(Spool(url), done.planned, run)
        before = files(run.path)
        collect(Spool(url), done.planned, run)
    assert files(run.path) == before


def test_cells_that_are_not_asked_for_stay_where_they_are(url: str, done: Done, run: RunFolder) -> None:
    done.leave(Spool(url))
    with run.lock():
        assert collect(Spool(url), done.planned[1:2], run) == 1
        assert collect(Spool(url), [], run) == 0
    assert set(run.read_all()) == {done.planned[1].cell_id}


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.model_copy(update={"status": "failed", "reason": "no luck"}),
        lambda record: record.model_copy(update={"key": record.key | {"seed": 7}}),
        lambda record: record.model_copy(update={"cell_id": record.cell_id[::-1]}),
    ],
    ids=["failed", "another key", "another cell"],
)
def test_a_record_that_is_not_of_its_cell_is_left_aside(
    url: str, done: Done, run: RunFolder, change: Callable[[Record], Record]
) -> None:
    spool = Spool(url)
    done.leave(spool, change)
    with run.lock():
        assert collect(spool, done.planned, run) == 0
    assert files(run.path) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cell_id": 1}'])
def test_what_is_no_record_is_left_aside(url: str, done: Done, run: RunFolder, text: str) -> None:
    spool = Spool(url)
    spool.keep(done.planned[0].cell_id, text, None)
    with run.lock():
        assert collect(spool, done.planned, run) == 0


def test_the_record_comes_last_and_says_that_the_weights_are_there(url: str, tmp_path: Path) -> None:
    spool = Spool(url)
    with pytest.raises((OSError, UnwritableError)):
        spool.keep("a", "{}", tmp_path / "no such weights")
    assert spool.records() == set()


def test_nothing_that_is_half_written_is_listed(tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(str(tmp_path / "spool"))
    fsync, seen = os.fsync, list[set[str]]()

    def look(handle: int) -> None:
        seen.append(spool.records())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    quantized = done.planned[1].cell_id
    spool.keep(quantized, "{}", done.folder.weights_path(quantized))
    assert seen == [set(), set()], "of the weights, and of the record"
    assert spool.records() == {quantized}


def test_a_file_has_its_name_when_it_is_whole_also_where_it_has_to_be_renamed() -> None:
    spool = Spool("renaming://spool/run")
    Renaming.halves.clear()
    spool.keep("cell", "{}", None)
    assert Renaming.halves and not any("cell.json" in names for names in Renaming.halves)
    assert spool.records() == {"cell"}
    assert {name.rpartition("/")[2] for name in Renaming.store} == {"cell.json"}, "and nothing else is left"


def test_what_a_killed_worker_left_is_not_listed(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.keep("a", "{}", None)
    for name in (".b.json.x1y2z3.tmp", ".c.json", "d.json.tmp", "notes.txt"):
        (tmp_path / "records" / name).write_text("{")
    assert spool.records() == {"a"}


def test_nothing_is_there_before_anyone_has_left_anything(url: str, done: Done, run: RunFolder) -> None:
    assert Spool(url).records() == set()
    with run.lock():
        assert collect(Spool(url), done.planned, run) == 0


def test_the_run_s_own_folder_can_be_the_spool(done: Done, run: RunFolder) -> None:
    spool = Spool(str(run.path))
    assert spool.is_local and spool.checkpoint_path("a") == run.path / "checkpoints" / "a.safetensors"
    done.leave(spool)
    before = files(run.path)
    with run.lock():
        todo = plan([one.cell for one in done.planned], run)
        assert todo.todo == [], "records lie where they belong, and need no one to take them"
        assert collect(spool, done.planned, run) == 3
    assert files(run.path) == before


def test_weights_that_are_missing_have_their_cell_run_again(url: str, done: Done, run: RunFolder) -> None:
    spool = Spool(url)
    for record in done.records:
        spool.keep(record.cell_id, dump_record(record), None)
    with run.lock():
        collect(spool, done.planned, run)
        found = plan([one.cell for one in done.planned], run)
    assert {one.cell_id for one in found.todo} == {one.cell_id for one in done.planned[1:]}


@pytest.mark.parametrize("url", ["nowhere://x/y", "s3x://bucket/run"])
def test_a_file_system_that_nobody_knows_is_one_clear_line(url: str) -> None:
    with pytest.raises(QBenchError) as caught:
        Spool(url)
    said = str(caught.value)
    assert said.startswith(f"--spool {url}: ") and "\n" not in said and url.partition(":")[0] in said.partition(": ")[2]


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match=r"cannot write .*a file is where a folder should be"):
        Spool(str(tmp_path / "file")).keep("a", "{}", None)


def test_large_weights_pass_in_pieces(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.runner.spool._PIECE", 1000)
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(4321))
    spool = Spool(url)
    spool.keep("a", "{}", sent)
    spool.weights("a", back)
    assert atomic.sha256_file(back) == atomic.sha256_file(sent)
    spool.weights("nobody", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_checkpoint_is_kept_on_a_folder_alone_until_it_is_forgotten(tmp_path: Path) -> None:
    path = Spool(str(tmp_path)).checkpoint_path("a")
    assert path is not None and path.is_relative_to(tmp_path)
    path.parent.mkdir()
    path.touch()
    for _ in range(2):
        Spool(str(tmp_path)).forget_checkpoint("a")
        assert not path.exists()
    assert Spool("memory://none").checkpoint_path("a") is None
    Spool("memory://none").forget_checkpoint("a")

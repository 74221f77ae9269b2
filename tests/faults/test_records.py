"""Stored files that are not what they should be, or not from when one thinks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbench.errors import StoreError
from qbench.runner import identity
from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.planning import plan
from qbench.runner.run import run
from qbench.runner.session import Session
from qbench.store import record as records
from qbench.store.folder import RunFolder
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.store.schema import CorruptRecordError, dump_record, parse_record
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite

Call = Callable[..., tuple[int, str, str]]

SUITE = """\
name: stored
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [4]
  methods: [rtn]
  seeds: 1
metrics: [loss]
"""
HISTORIC = Path(__file__).parents[1] / "historic"
FUTURE = "2099-01-01T00:00:00.000+00:00"
WHOLE = (HISTORIC / f"record_v{records.SCHEMA_VERSION}.json").read_bytes()


class InThisProcess:
    """An executor that is quick."""

    def run(
        self, cells: Iterable[PlannedCell | None], suite: str, weights_path: Callable[[str], Path], begun: object
    ) -> Iterator[Record]:
        session = Session("cpu")
        for one in cells:
            assert one is not None
            yield execute(one, suite, session, weights_path(one.cell_id))


@pytest.fixture
def folder(toys: ModuleType, call: Call) -> RunFolder:
    """Return a folder with the records of a run of the suite `stored`, where the command line looks for it."""
    Path("stored.yaml").write_text(SUITE)
    folder = RunFolder(Path("results/runs/stored"))
    cells = enumerate_cells(load_suite("stored.yaml"))
    found = run(plan(cells, folder), "stored", folder, InThisProcess(), lambda record: None)  # type: ignore[arg-type]
    assert len(found) == 2 and all(record.clean for record in found.values())
    return folder


def rounded(folder: RunFolder) -> Record:
    return next(record for record in folder.read_all().values() if record.axes["method"] == "rtn")


def test_every_prefix_of_a_record_is_corrupt() -> None:
    text = WHOLE.decode()
    assert dump_record(parse_record(text.rstrip("\n"))) == text
    for length in range(len(text.rstrip("\n"))):
        with pytest.raises(CorruptRecordError, match=r"^not JSON"):
            parse_record(text[:length])


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_record_is_one_or_is_named(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, left out or put in: never another exception than those a run knows how to tell."""
    folder = RunFolder(tmp_path_factory.getbasetemp() / "damaged")
    start = data.draw(st.integers(0, len(WHOLE)))
    end = data.draw(st.integers(start, min(len(WHOLE), start + 40)))
    damaged = WHOLE[:start] + data.draw(st.binary(max_size=40)) + WHOLE[end:]
    path = folder.record_path(json.loads(WHOLE)["cell_id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damaged)
    with suppress(StoreError):  # a schema_version that became a larger number: told, and never run over
        scan = folder.scan()
        assert len(scan.records) + len(scan.corrupt) == 1
        for reason in scan.corrupt.values():
            assert reason and "\n" not in reason


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"schema_version": 2, "key": ' + '{"a": ' * 100_000, f'{{"schema_version": {"9" * 5000}}}'],
)
def test_what_is_too_deep_or_too_long_is_corrupt_too(text: str) -> None:
    with pytest.raises(CorruptRecordError):
        parse_record(text)


@pytest.mark.parametrize("length", [0, 1, 300])
def test_a_truncated_record_is_run_again_and_the_others_are_not(folder: RunFolder, length: int) -> None:
    before = rounded(folder)
    path = folder.record_path(before.cell_id)
    path.write_bytes(path.read_bytes()[:length])
    found = plan(enumerate_cells(load_suite("stored.yaml")), folder)
    assert [one.cell_id for one in found.todo] == [before.cell_id] and list(found.corrupt) == [path]
    run(found, "stored", folder, InThisProcess(), lambda record: None)  # type: ignore[arg-type]
    assert rounded(folder).metrics == before.metrics
    assert rounded(folder).weights_sha256 == before.weights_sha256


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_weights_that_are_not_those_of_the_record_are_made_again(folder: RunFolder, damage: str) -> None:
    before = rounded(folder)
    path = folder.weights_path(before.cell_id)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "truncated" else whole[:-1] + bytes([whole[-1] ^ 1]))
    found = plan(enumerate_cells(load_suite("stored.yaml")), folder)
    assert [one.cell_id for one in found.todo] == [before.cell_id]
    run(found, "stored", folder, InThisProcess(), lambda record: None)  # type: ignore[arg-type]
    assert path.read_bytes() == whole


def test_a_record_of_an_older_schema_still_counts(
    folder: RunFolder, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored under version 1 is not run again, and no later version will cost a run either."""
    said = call("run", "--suite", "stored.yaml", "--device", "cpu")
    for record in folder.read_all().values():
        path = folder.record_path(record.cell_id)
        path.write_text(dump_record(record).replace('"schema_version": 2', '"schema_version": 1'))
        assert json.loads(path.read_text())["schema_version"] == 1
    assert call("run", "--suite", "stored.yaml", "--device", "cpu") == said
    assert said[2].startswith("stored: 0 cells to run, 2 from the records")
    cells = enumerate_cells(load_suite("stored.yaml"))
    ids = [identify(cell).cell_id for cell in cells]
    monkeypatch.setattr(records, "SCHEMA_VERSION", 99)
    monkeypatch.setattr(identity, "SCHEMA_VERSION", 99, raising=False)
    assert [identify(cell).cell_id for cell in cells] == ids


def test_a_record_of_a_newer_schema_is_told_of_in_one_line(folder: RunFolder, call: Call) -> None:
    path = folder.record_path(rounded(folder).cell_id)
    newer = path.read_text().replace('"schema_version": 2', '"schema_version": 3, "later": 1')
    path.write_text(newer)
    for verb in ("run", "plan", "report", "repeat"):
        code, _, err = call(verb, "--suite", "stored.yaml")
        assert code == 2, verb
        said = "schema_version 3 was written by a newer qbench (this one knows 2): update qbench"
        assert err == f"qbench: {path}: {said}\n", verb
    assert path.read_text() == newer


def test_a_clock_that_was_set_back_changes_nothing(folder: RunFolder, call: Call) -> None:
    """Records from the future are resumed from, and a stale one of them does not stand for the cell of today."""
    verbs = (
        ("run", "--suite", "stored.yaml", "--device", "cpu"),
        ("report", "--suite", "stored.yaml"),
        ("plan", "--suite", "stored.yaml"),
    )
    before = [call(*verb)[:2] for verb in verbs]
    for record in folder.read_all().values():
        folder.write(record.model_copy(update={"started": FUTURE, "ended": FUTURE}))
    assert [call(*verb)[:2] for verb in verbs] == before

    current = rounded(folder)
    folder.write(current.model_copy(update={"started": "2026-01-01", "ended": "2026-01-01"}))
    stale = {"cell_id": "0" * 64, "ended": FUTURE, "metrics": {"loss/toy": 99.0}}
    folder.write(current.model_copy(update=stale))
    assert [call(*verb)[:2] for verb in verbs] == before
    assert newest([current])[current.label] == current


def test_a_clock_that_is_set_back_while_a_cell_runs_costs_it_nothing(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qbench.runner import execute as execution

    times = iter([FUTURE, "2026-01-01T00:00:00.000+00:00"])
    monkeypatch.setattr(execution, "_now", lambda: next(times))
    (tmp_path / "stored.yaml").write_text(SUITE)
    cell = next(one for one in enumerate_cells(load_suite(str(tmp_path / "stored.yaml"))) if not one.is_fp)
    found = execute(identify(cell), "stored", Session("cpu"), tmp_path / "weights")
    assert found.clean and found.started > found.ended
    assert found.cost.method_seconds > 0 and found.cost.evaluation_seconds > 0

"""Worker processes: one that dies costs its cell, none outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from qbench.methods.ste_qat import StraightThroughQAT
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.local import LocalExecutor, cores
from qbench.runner.process import ALLOCATOR
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
StartDriver = Callable[[str, int], "subprocess.Popen[str]"]

# Nothing here takes so long but on a machine with other work.
PATIENCE = 280
pytestmark = pytest.mark.timeout(900)

SUITE = """
name: waiting
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [8, 4, 3, 2]
  methods: [rtn, {name: waits, seconds: 0.4}]
  seeds: 1
metrics: [loss]
"""

DRIVER = """
import os
import sys
from pathlib import Path
if __name__ != "__main__":
    Path(f"importing-{os.getpid()}").touch()
import toys
from qbench.cli import main
if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    toys.install()
    sys.exit(main())
"""


def execute_all(executor: LocalExecutor, cells: list[PlannedCell], folder: Path) -> dict[str, Record]:
    return {record.label: record for record in executor.run(cells, "toy", RunFolder(folder).weights_path)}


def what_counts(records: dict[str, Record]) -> dict[str, object]:
    return {
        label: (record.status, record.metrics, record.documents, record.weights_sha256, record.key)
        for label, record in records.items()
    }


def children() -> list[psutil.Process]:
    # The tracker of shared resources belongs to multiprocessing and stays as long as this process.
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def wait_until(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_one_process_or_two_give_the_same_records(toy: MakeCell, tmp_path: Path) -> None:
    cells = [identify(cell) for cell in (toy(), toy("rtn"), toy("noisy"), toy("raises"), toy("rtn", seed=1))]
    one = execute_all(LocalExecutor(1, "cpu"), cells, tmp_path / "one")
    two = execute_all(LocalExecutor(2, "cpu"), cells, tmp_path / "two")
    assert len(one) == 5
    assert what_counts(one) == what_counts(two)
    assert {record.environment["threads"] for record in one.values()} == {cores()}
    assert {record.environment["threads"] for record in two.values()} == {max(1, cores() // 2)}
    for record in [*one.values(), *two.values()]:
        assert record.environment["deterministic"] is True
        assert record.environment["allocator"] == "pinned"
    weights = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "weights").iterdir()} for name in ("one", "two")
    ]
    assert weights[0] == weights[1] and len(weights[0]) == 3
    assert children() == []
    assert not set(ALLOCATOR) & set(os.environ)


def test_a_process_that_dies_costs_its_cell_only_and_ctrl_c_is_left_to_the_parent(
    toy: MakeCell, tmp_path: Path
) -> None:
    cells = [identify(cell) for cell in (toy("rtn"), toy("dies"), toy("interrupted"), toy("noisy"))]
    found = execute_all(LocalExecutor(2, "cpu"), cells, tmp_path)
    assert set(found) == {one.cell.label() for one in cells}
    for one in cells:
        record = found[one.cell.label()]
        if one.cell.method is not None and one.cell.method.name == "dies":
            assert record.status == "failed"
            assert record.reason is not None and record.reason.startswith("its process died twice without a word")
            assert (record.cell_id, record.key, record.axes) == (one.cell_id, one.key, one.cell.axes())
        else:
            assert record.clean, record.reason
    assert children() == []


def test_settings_that_a_cell_leaves_behind_are_not_the_next_ones(toy: MakeCell, tmp_path: Path) -> None:
    trained = identify(toy(StraightThroughQAT(name="ste_qat", steps=3, batch_size=2)))
    alone = execute_all(LocalExecutor(1, "cpu"), [trained], tmp_path / "alone")
    behind = execute_all(LocalExecutor(1, "cpu"), [identify(toy("unsettles")), trained], tmp_path / "behind")
    first, second = (found[trained.cell.label()] for found in (alone, behind))
    assert first.clean and second.clean, second.reason
    assert first.weights_sha256 == second.weights_sha256 and first.metrics == second.metrics
    assert first.environment == second.environment


def test_a_cell_that_cannot_be_handed_over_fails_alone(toy: MakeCell, toys: ModuleType, tmp_path: Path) -> None:
    class Inside(toys.Prints):  # type: ignore[misc, name-defined]
        pass

    cells = [toy(), replace(toy("rtn"), method=Inside(name="inside")), toy("rtn")]
    planned = [PlannedCell(cell, {}, f"{index}") for index, cell in enumerate(cells)]
    found = execute_all(LocalExecutor(1, "cpu"), planned, tmp_path)
    assert [record.status for record in found.values()].count("ok") == 2
    reason = str(found[cells[1].label()].reason)
    assert found[cells[1].label()].status == "failed"
    assert "Inside" in reason and "\n" not in reason


def test_a_run_that_is_broken_off_does_not_wait_for_its_cells(toy: MakeCell, toys: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    cells = [identify(cell) for cell in (toy(), toy(toys.Waits(name="waits", seconds=600, log=log)))]
    records = LocalExecutor(2, "cpu").run(cells, "toy", RunFolder(tmp_path).weights_path)
    assert next(records).status == "ok"
    wait_until(log.exists)
    records.close()  # type: ignore[attr-defined]
    assert children() == []


def test_it_is_told_when_a_process_begins_with_a_cell(toy: MakeCell, tmp_path: Path) -> None:
    cells = [identify(cell) for cell in (toy(), toy("rtn"), toy("dies"))]
    told: list[str] = []
    executed = LocalExecutor(2, "cpu").run(
        cells, "toy", RunFolder(tmp_path).weights_path, lambda one: told.append(one.cell.label())
    )
    for record in executed:
        told.append(f"ended {record.label}")
    for one in cells:
        label = one.cell.label()
        # A cell whose process dies is begun twice.
        assert told.count(label) == 1 + ("dies" in label)
        assert told.index(label) < told.index(f"ended {label}")


def test_nothing_to_run_starts_nothing(tmp_path: Path) -> None:
    assert execute_all(LocalExecutor(2, "cpu"), [], tmp_path) == {}
    assert children() == []


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[StartDriver]:
    """Return a function that starts `qbench run` with the toys; what it started is gone after the test."""
    (tmp_path / "waiting.yaml").write_text(SUITE)
    (tmp_path / "driver.py").write_text(DRIVER)
    started: list[subprocess.Popen[str]] = []

    def start(out: str, jobs: int) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            [
                sys.executable,
                "driver.py",
                "run",
                *f"--suite waiting.yaml --device cpu --out {out} --jobs {jobs}".split(),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(driver)
        return driver

    yield start
    for driver in started:
        with driver:
            driver.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_polite_kill_end_a_run_at_once_and_in_one_line(
    start_driver: StartDriver, tmp_path: Path, word: signal.Signals
) -> None:
    driver = start_driver("out", 2)
    wait_until(lambda: driver.poll() is not None or len(list((tmp_path / "out" / "records").glob("[!.]*.json"))) >= 4)
    workers = psutil.Process(driver.pid).children(recursive=True)
    if word == signal.SIGINT:
        os.killpg(driver.pid, word)  # as a terminal does: to the driver and its workers
    else:
        driver.send_signal(word)
    _, said = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("stopped: what has ended is in out")
    wait_until(lambda: not alive(workers))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_while_the_workers_are_still_importing_is_one_line_too(
    start_driver: StartDriver, tmp_path: Path
) -> None:
    driver = start_driver("out", 2)
    wait_until(lambda: driver.poll() is not None or any(tmp_path.glob("importing-*")))
    os.killpg(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("stopped: what has ended is in out")

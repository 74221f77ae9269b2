"""A worker that dies, takes too long, runs out of memory or diverges costs its own cell, and nobody else's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from qbench.methods.base import Method
from qbench.quantizers.absmax import AbsMax
from qbench.runner.identity import identify
from qbench.runner.local import LocalExecutor
from qbench.runner.planning import plan
from qbench.runner.run import run
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell

pytestmark = pytest.mark.timeout(900)

Call = Callable[..., tuple[int, str, str]]
SECONDS = 6.0


def children() -> list[psutil.Process]:
    # The tracker of shared resources belongs to multiprocessing and stays as long as this process.
    found = psutil.Process().children(recursive=True)
    return [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]


def cell(toys: ModuleType, method: Method | None, bits: int = 4) -> Cell:
    model, metrics = toys.Toy(name="toy"), ("loss",)
    if method is None:
        return Cell(model, None, None, None, 0, metrics)
    return Cell(model, AbsMax(name="absmax"), bits, method, 0, metrics)


def go(cells: list[Cell], folder: RunFolder, executor: LocalExecutor) -> dict[str, Record]:
    return run(plan(cells, folder), "faults", folder, executor, lambda record: None)


def test_each_fault_costs_its_own_cell_and_no_other_is_run_twice(toys: ModuleType, tmp_path: Path) -> None:
    log, never = tmp_path / "log", tmp_path / "never"
    faults: list[tuple[str, Method]] = [
        ("dies", toys.Dies(name="dies")),
        ("late", toys.HoldsWithAChild(name="holds_with_a_child", until=never)),
        ("memory", toys.AsksForMuch(name="asks_for_much")),
        ("memory", toys.AsksForMuchOfNumPy(name="asks_for_much_of_numpy")),
        ("memory", toys.RunsOut(name="runs_out")),
        ("diverged", toys.GivesNaN(name="gives_nan")),
        ("failed", toys.Raises(name="raises")),
    ]
    innocent = [toys.Waits(name="waits", seconds=0.2, log=log)] * 4
    cells = [cell(toys, None)]
    for bits, (_, method) in zip((8, 7, 6, 5), faults, strict=False):
        cells += [cell(toys, method), cell(toys, innocent[0], bits)]
    cells += [cell(toys, method) for _, method in faults[4:]]
    folder = RunFolder(tmp_path / "run")
    found = go(cells, folder, LocalExecutor(2, "cpu", timeout=SECONDS))

    assert len(found) == len(cells) == 12
    by_name = {record.axes["method"]: record for record in found.values() if "waits" not in record.label}
    reasons = {str(name).partition("[")[0]: (record.status, record.reason) for name, record in by_name.items()}
    assert reasons.pop("fp") == ("ok", None)
    assert reasons == {
        "dies": (
            "failed",
            "its process died twice without a word: killed, as the system does where memory runs out, or crashed",
        ),
        "holds_with_a_child": ("timeout", f"not done after {SECONDS:g} s (--timeout)"),
        "asks_for_much": (
            "failed",
            "out of memory: can't allocate memory: you tried to allocate 4000000000000000 bytes. "
            "Error code 12 (Cannot allocate memory)",
        ),
        "asks_for_much_of_numpy": (
            "failed",
            "out of memory: Unable to allocate 7.11 PiB for an array with shape (1000000000000000,) "
            "and data type float64",
        ),
        "runs_out": ("failed", "out of memory: MemoryError"),
        "gives_nan": ("diverged", "layer 'blocks.0.0' has codes that are not finite"),
        "raises": ("failed", "RuntimeError: no luck today"),
    }
    waits = [record for record in found.values() if "waits" in record.label]
    assert len(waits) == 4 and all(record.clean for record in waits)
    assert len(log.read_text().splitlines()) == 4, "a cell beside a fault was run again"
    assert children() == []
    with suppress(psutil.NoSuchProcess):  # or it is dead, and nobody has asked for its exit code
        assert psutil.Process(int(never.with_suffix(".pid").read_text())).status() == psutil.STATUS_ZOMBIE
    assert folder.read_all() == found
    # All that is not well is tried again, and nothing else.
    again = plan(cells, folder)
    assert Counter(found[one.cell_id].status for one in again.todo) == {"failed": 5, "timeout": 1, "diverged": 1}


def test_a_cell_that_was_too_slow_is_tried_again_and_may_then_do_it(toys: ModuleType, tmp_path: Path) -> None:
    until = tmp_path / "until"
    cells = [cell(toys, None), cell(toys, toys.Holds(name="holds", until=until))]
    folder = RunFolder(tmp_path / "run")
    first = go(cells, folder, LocalExecutor(1, "cpu", timeout=2.0))
    slow = identify(cells[1]).cell_id
    assert first[slow].status == "timeout" and not first[slow].clean
    assert not folder.weights_path(slow).exists()
    until.touch()
    second = go(cells, folder, LocalExecutor(1, "cpu", timeout=600.0))
    assert second[slow].clean and folder.weights_path(slow).exists()
    assert second[slow].cell_id == slow


def test_the_command_line_says_which_cell_had_no_time(toys: ModuleType, call: Call) -> None:
    Path("slow.yaml").write_text(
        "name: slow\nmatrix:\n  models: [toy]\n  quantizers: [absmax]\n  bits: [4]\n  methods:\n    - rtn\n"
        "    - {name: holds, until: never}\n  seeds: 1\nmetrics: [loss]\n"
    )
    code, out, err = call("run", "--suite", "slow.yaml", "--device", "cpu", "--jobs", "1", "--timeout", "2s")
    assert code == 1
    lines = [line for line in err.splitlines() if not line.endswith((" left", ", estimating"))]
    assert len(lines) == 3 and lines[0].startswith("slow: 3 cells to run")
    assert lines[2].startswith("3 of 3 cells, 1 failed, ")
    assert lines[1].startswith("toy/absmax[per_channel]/4b/holds")
    assert lines[1].endswith("/s0: timeout: not done after 2 s (--timeout)")
    assert "1 timeout" in out and "not done after 2 s (--timeout)" in out
    assert children() == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("1.5", 1.5), ("90s", 90.0), ("10m", 600.0), (" 2h ", 7200.0), ("0.5h", 1800.0)]
)
def test_times_that_are_understood(text: str, seconds: float) -> None:
    from qbench.cli.executing import seconds_of

    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "10 minutes", "1d", "inf", "nan", "1e9", "٣", "9" * 400])
def test_times_that_are_not(call: Call, tmp_path: Path, text: str) -> None:
    code, out, err = call("run", "--suite", "smoke", f"--timeout={text}")
    assert (code, out) == (2, "")
    allowed = "allowed: seconds above zero, such as 90, or 10m, or 2h"
    assert err == f"qbench: --timeout {text!r} is no time ({allowed})\n"
    assert list(tmp_path.iterdir()) == []

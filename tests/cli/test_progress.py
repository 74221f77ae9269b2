"""How far a run is: what is told, when, and that it fits."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from qbench.cli.progress import LOG_SECONDS, Log, Progress, View, roughly, told
from qbench.runner.durations import Durations
from qbench.store.record import Record
from qbench.store.summary import Summary

LONG = "resnet8-fashion[calibration_images=512,evaluation_images=5000]"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A run of which a test says what happens and when."""

    methods: list[str]
    model: str = "llama-1m"
    jobs: int = 2
    width: int = 80
    terminal: bool = False
    clock: Clock = field(default_factory=Clock)
    durations: Durations = field(default_factory=Durations)

    def __post_init__(self) -> None:
        self.cells: list[Any] = [self._cell(at, method) for at, method in enumerate(self.methods)]
        self.progress = Progress(self.cells, self.durations, self.jobs, self.clock)
        self.out = io.StringIO()
        self.console = Console(
            file=self.out,
            width=self.width,
            height=20,
            force_terminal=self.terminal,
            color_system=None,
            highlight=False,
            soft_wrap=True,
            markup=False,
        )

    def _cell(self, at: int, method: str) -> Any:
        axes = {"model": self.model, "quantizer": "mse[per_channel]", "bits": 2, "method": method, "seed": at}
        label = f"{self.model}/mse[per_channel]/2b/{method}/s{at}"
        return SimpleNamespace(cell_id=str(at), cell=SimpleNamespace(axes=lambda: axes, label=lambda: label))

    def record(self, at: int, status: str = "ok", reason: str | None = None) -> Record:
        return Record(
            cell_id=str(at),
            key={},
            axes=self.cells[at].cell.axes(),
            suite="s",
            status=status,
            reason=reason,  # type: ignore[arg-type]
        )

    def drawn(self) -> list[str]:
        shown = View(self.progress, self.console)
        with self.console.capture() as captured:
            self.console.print(shown.render())
        return captured.get().splitlines()

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_nothing_is_estimated_before_anything_is_known() -> None:
    bench = Bench(["rtn", "rtn", "lsq"])
    assert bench.progress.line() == "0 of 3 cells, 0 s, estimating"
    bench.progress.begun(bench.cells[0])
    bench.clock.now = 10
    bench.progress.done(bench.record(0))
    assert bench.progress.line() == "1 of 3 cells, 10 s, over 10 s left"  # lsq comes on top of that
    bench.progress.begun(bench.cells[2])
    bench.clock.now = 110
    bench.progress.done(bench.record(2))
    assert bench.progress.line() == "2 of 3 cells, 1 min 50 s, about 10 s left"


def test_a_cell_that_fails_or_is_not_executed_tells_nothing_of_how_long_cells_take() -> None:
    bench = Bench(["rtn", "rtn", "rtn"])
    bench.progress.begun(bench.cells[0])
    bench.clock.now = 10
    bench.progress.done(bench.record(0, "failed", "out of memory"))
    bench.progress.done(bench.record(1, "skipped", "its full-precision cell failed"))
    assert bench.progress.line() == "2 of 3 cells, 1 failed, 10 s, estimating"


def test_a_cell_that_is_tried_again_begins_anew() -> None:
    bench = Bench(["rtn"])
    bench.progress.begun(bench.cells[0])
    bench.clock.now = 100
    bench.progress.begun(bench.cells[0])
    bench.clock.now = 103
    assert list(bench.progress.cells()) == [("llama-1m/mse[per_channel]/2b/rtn/s0", "3 s")]
    bench.progress.done(bench.record(0))
    assert bench.durations.expected(("llama-1m", "rtn")) == 3
    assert bench.progress.line() == "1 of 1 cells, 1 min 43 s"


def test_a_log_is_sparse() -> None:
    bench = Bench(["rtn"] * 200, jobs=1)
    with Log(bench.progress, bench.console) as shown:
        for at, cell in enumerate(bench.cells):
            shown.begun(cell)
            bench.clock.now += 1
            shown.done(bench.record(at, *(("failed", "no luck") if at == 44 else ())))
    *lines, last = bench.lines()
    assert len(lines) == 1 + 200 // LOG_SECONDS
    assert lines[0] == "30 of 200 cells, 30 s, about 3 min left"
    assert lines[1] == "llama-1m/mse[per_channel]/2b/rtn/s44: failed: no luck"
    assert last == "200 of 200 cells, 1 failed, 3 min 20 s"


def test_a_log_that_is_broken_off_has_no_last_line() -> None:
    bench = Bench(["rtn"])
    with pytest.raises(KeyboardInterrupt), Log(bench.progress, bench.console):
        raise KeyboardInterrupt
    assert bench.lines() == []


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_view_has_a_line_for_each_running_cell_and_fits(width: int) -> None:
    method = "ste_qat[bn=recalibrate,steps=200,batch_size=64,bn_training=update]"
    bench = Bench([method] * 5, model=LONG, width=width)
    bench.progress.begun(bench.cells[0])
    bench.clock.now = 17
    bench.progress.done(bench.record(0, "diverged", "NaN"))
    bench.durations.learn((LONG, method), 3700)
    bench.progress.begun(bench.cells[1])
    bench.progress.begun(bench.cells[2])
    bench.clock.now = 29
    head, *cells = bench.drawn()
    assert max(map(len, [head, *cells])) <= width
    assert "1/5" in head and "1 failed" in head
    assert len(cells) == 2 and all(line.endswith("12 s of ~1 h 1 min") for line in cells)
    if width == 80:
        assert "about 2 h 3 min left" in head
        assert cells[0].startswith("  resnet8-fashion[..]/mse[..]/2b/ste_qat[..]/s1")


def test_a_summary_tells_as_much_as_its_record() -> None:
    with_records, with_summaries = Bench(["rtn"] * 3), Bench(["rtn"] * 3)
    for bench, of in ((with_records, lambda record: record), (with_summaries, Summary.of)):
        with Log(bench.progress, bench.console) as shown:
            for at, status in enumerate(("ok", "failed", "skipped")):
                shown.begun(bench.cells[at])
                bench.clock.now += 20
                shown.done(of(bench.record(at, status, "no luck")))  # type: ignore[no-untyped-call]
    assert with_records.lines() == with_summaries.lines() and "failed: no luck" in with_records.lines()[0]


def test_only_what_runs_is_drawn() -> None:
    bench = Bench(["rtn"] * 1000)
    for at, cell in enumerate(bench.cells[:10]):
        bench.progress.begun(cell)
        if at < 8:
            bench.progress.done(bench.record(at))
    assert [label.rpartition("/")[2] for label, _ in bench.progress.cells()] == ["s8", "s9"]


def test_a_view_says_so_while_processes_start() -> None:
    assert Bench(["rtn"]).drawn()[1:] == ["  processes start"]


def test_a_view_never_fills_the_terminal() -> None:
    bench = Bench(["rtn"] * 64, jobs=64)
    for cell in bench.cells:
        bench.progress.begun(cell)
    assert len(bench.drawn()) < bench.console.height


def test_a_view_leaves_a_sane_terminal_and_a_last_line() -> None:
    bench = Bench(["rtn", "rtn"], terminal=True)
    with View(bench.progress, bench.console) as shown:
        for at in range(2):
            shown.begun(bench.cells[at])
            shown.done(bench.record(at, *(("failed", "no luck") if at else ())))
    said = bench.out.getvalue()
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1  # the cursor is there again
    assert "rtn/s1: failed: no luck" in said
    assert said.endswith("2 of 2 cells, 1 failed, 0 s\n")


def test_a_view_that_is_broken_off_leaves_a_sane_terminal() -> None:
    bench = Bench(["rtn"], terminal=True)
    with pytest.raises(KeyboardInterrupt), View(bench.progress, bench.console):
        raise KeyboardInterrupt
    assert bench.out.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0.4, "0 s", "0 s"),
        (59.6, "1 min", "1 min"),
        (843, "14 min 3 s", "14 min"),
        (3600, "1 h", "1 h"),
        (7261, "2 h 1 min", "2 h 1 min"),
    ],
)
def test_times_as_one_says_them(seconds: float, exact: str, rough: str) -> None:
    assert (told(seconds), roughly(seconds)) == (exact, rough)

"""How far a run is: a live view in a terminal, few plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING

from qbench.report.short_names import abbreviate

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from qbench.runner.durations import Durations, Kind
    from qbench.runner.identity import PlannedCell
    from qbench.store.record import Record
    from qbench.store.summary import Summary

LOG_SECONDS = 30.0
_REFRESHES = 4  # a second
_BAR = 30


def told(seconds: float) -> str:
    """Return a time as one says it.

    Examples
    --------
    >>> told(0.4), told(59.6), told(843), told(7261)
    ('0 s', '1 min', '14 min 3 s', '2 h 1 min')
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{rest} s"


def roughly(seconds: float) -> str:
    """Return a time that is an estimate: whole minutes above two of them."""
    return told(seconds if seconds < 120 else 60 * round(seconds / 60))


class Progress:
    """What is known of a run while it goes on; tells nothing itself.

    Parameters
    ----------
    todo : iterable of PlannedCell
        All cells that are to be executed.
    durations : Durations
        How long they may take; learns from those that end.
    jobs : int
        Cells at a time.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        todo: list[PlannedCell],
        durations: Durations,
        jobs: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from qbench.runner.durations import kind_of

        self.total, self.ended, self.failed = len(todo), 0, 0
        self.running: dict[str, float] = {}
        self._labels: dict[str, str] = {}  # of those that run
        alike: dict[Kind, Kind] = {}
        self._kinds = {one.cell_id: alike.setdefault(kind := kind_of(one.cell), kind) for one in todo}
        self._waiting = Counter(self._kinds.values())
        self._durations, self._clock = durations, clock
        self._jobs = jobs
        self._start = clock()

    def resize(self, jobs: int) -> None:
        """Take in how many cells there are at a time from now on: a cluster grows and shrinks."""
        self._jobs = jobs

    def begun(self, planned: PlannedCell) -> None:
        """Take in that a process has begun with a cell, maybe not for the first time."""
        if planned.cell_id not in self.running:
            self._waiting[self._kinds[planned.cell_id]] -= 1
            self._labels[planned.cell_id] = planned.cell.label()
        self.running[planned.cell_id] = self._clock()

    def done(self, record: Record | Summary) -> None:
        """Take in that a cell has ended, or will not be executed."""
        self.ended += 1
        self.failed += record.status not in ("ok", "skipped")
        kind, began = self._kinds[record.cell_id], self.running.pop(record.cell_id, None)
        self._labels.pop(record.cell_id, None)
        if began is None:
            self._waiting[kind] -= 1
        elif record.status == "ok":
            self._durations.learn(kind, self._clock() - began)

    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return self._clock() - self._start

    def left(self) -> str:
        """Return how long it will go on: ``about 14 min left``, ``over`` where some cells tell nothing yet."""
        now = self._clock()
        running = [(self._kinds[cell_id], now - began) for cell_id, began in dict(self.running).items()]
        seconds, known = self._durations.left(self._waiting, running, self._jobs)
        if not running and not any(self._waiting.values()):
            return ""
        if known:
            return f"about {roughly(seconds)} left"
        return f"over {roughly(seconds)} left" if seconds >= 1 else "estimating"

    def cells(self) -> Iterator[tuple[str, str]]:
        """Yield the label of each running cell and ``12 s of ~17 s``, the one that began first first."""
        now, running = self._clock(), dict(self.running)
        seconds = self._durations.expected_of({self._kinds[cell_id] for cell_id in running})
        for cell_id, began in running.items():
            expected = seconds[self._kinds[cell_id]]
            if (label := self._labels.get(cell_id)) is not None:  # it may end while it is drawn
                yield label, told(now - began) + (f" of ~{told(expected)}" if expected is not None else "")

    def line(self) -> str:
        """Return it all in a line: ``12 of 222 cells, 3 failed, 4 min 10 s, about 31 min left``."""
        failed = f"{self.failed} failed" if self.failed else ""
        left = self.left() if self.ended < self.total else ""
        return ", ".join(filter(None, [f"{self.ended} of {self.total} cells", failed, told(self.elapsed()), left]))


class Log:
    """Plain lines: now and then how far it is, at once each cell that failed, and a last one."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console, self._last = progress, console, 0.0

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._console.print(self._progress.line())

    def begun(self, planned: PlannedCell) -> None:
        """Tell nothing: a line a cell would be too many."""
        self._progress.begun(planned)

    def done(self, record: Record | Summary) -> None:
        """Tell of a cell that failed, and of the run where nothing was told for half a minute."""
        self._progress.done(record)
        if said := failure(record):
            self._console.print(said)
        now = self._progress.elapsed()
        if now - self._last >= LOG_SECONDS and self._progress.ended < self._progress.total:
            self._last = now
            self._console.print(self._progress.line())


class View:
    """A bar, and a line for each running cell, drawn anew a few times a second; gone when the run ends."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._live: Live | None = None

    def __enter__(self) -> View:
        from rich.live import Live

        self._live = Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=_REFRESHES,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._live is not None
        self._live.stop()
        if kind is None:
            self._console.print(self._progress.line())

    def begun(self, planned: PlannedCell) -> None:
        """Show a cell that runs."""
        self._progress.begun(planned)

    def done(self, record: Record | Summary) -> None:
        """Show a cell that has ended no more; one that failed is told of above the bar."""
        self._progress.done(record)
        if said := failure(record):
            self._console.print(said, style="red")

    def render(self) -> RenderableType:
        """Return what is drawn: lines that are never wider than the terminal."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        run, width = self._progress, self._console.width - 1
        counts = Text(f"{run.ended}/{run.total}", no_wrap=True)
        counts.append(f" {run.failed} failed" if run.failed else "", style="bold red")
        times = Text(", ".join(filter(None, [told(run.elapsed()), run.left()])), no_wrap=True)
        bar = ProgressBar(run.total, run.ended, width=max(4, min(_BAR, width - len(counts) - len(times) - 2)))
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, counts, times)
        lines = []
        for label, time_of in islice(run.cells(), max(1, self._console.height - 3)):
            name = abbreviate(label, width - len(time_of) - 4)
            lines.append(Text.assemble("  ", name, "  ", (time_of, "dim"), no_wrap=True, overflow="crop"))
        return Group(head, *(lines or [Text("  processes start", style="dim")] if run.ended < run.total else []))


def failure(record: Record | Summary) -> str:
    """Return what is to be told of a cell at once; nothing of one that is well, or behind one that is not."""
    return "" if record.status in ("ok", "skipped") else f"{record.label}: {record.status}: {record.reason}"

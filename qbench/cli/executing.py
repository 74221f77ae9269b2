"""What `run` and `repeat` share: a plan is executed in processes, with a bar, and ends in one line where it must."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qbench.cli import on_ray
from qbench.cli.progress import Log, Progress, View
from qbench.errors import QBenchError, StoreError, UnwritableError

if TYPE_CHECKING:
    from qbench.runner.local import LocalExecutor
    from qbench.runner.planning import Plan
    from qbench.runner.run import Executor
    from qbench.store.folder import RunFolder
    from qbench.store.record import Record
    from qbench.suite.cell import Cell

DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
JobsOption = Annotated[
    int | None, typer.Option(min=1, help="Processes  [default: one a core, or one on a GPU]", show_default=False)
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Do stored cells again, from their beginning.")]
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--timeout", help="What a cell may take, such as 90, 10m or 2h  [default: no limit]", show_default=False
    ),
]

CheckpointOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-every", min=0, help="Seconds from one checkpoint of a training to the next; 0 is never."
    ),
]
CHECKPOINT_SECONDS = 300.0
"""How often a training leaves a checkpoint, unless it is told otherwise."""

_MOST_HELD = 10_000  # records of some 50 KB each
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Way:
    """How cells are executed.

    Attributes
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    jobs : int or None
        Processes; by default one a core, or one on a GPU.
    timeout : float or None
        Seconds that a cell may take.
    threads : int or None
        Threads of each process; by default the cores shared out evenly.
    environment : mapping of str to str
        What the environment of the processes gets besides.
    checkpoint_seconds : float
        How much time goes by from one checkpoint of a training to the next; 0 is never.
    cluster : Cluster or None
        The cluster that executes them; None for processes on this machine.
    """

    device: str = "auto"
    jobs: int | None = None
    timeout: float | None = None
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    cluster: on_ray.Cluster | None = None


def seconds_of(text: str | None) -> float | None:
    """Return the seconds that ``--timeout`` asks for: a number, or one with ``s``, ``m`` or ``h`` behind it.

    Raises
    ------
    QBenchError
        It is no such thing, or not above zero.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text.strip(), re.ASCII)
    seconds = 0.0 if found is None else float(found[1]) * _UNITS[found[2]]
    if not 0 < seconds < float("inf"):
        raise QBenchError(f"--timeout {text!r} is no time (allowed: seconds above zero, such as 90, or 10m, or 2h)")
    return seconds


def fetch(cells: list[Cell], console: Console) -> None:
    """Bring what the models of the cells need, where it is not there yet."""
    for model in {cell.model for cell in cells if cell.skip is None}:
        with console.status(f"fetching what {model.label()} needs"):
            model.prepare()  # type: ignore[attr-defined]


def execute(todo: Plan, suite: str, folder: RunFolder, way: Way, console: Console) -> Mapping[str, Record]:
    """Execute a plan, tell of cells that fail, and return all records of the plan by cell id.

    Parameters
    ----------
    todo : Plan
        What is to be done.
    suite : str
        The suite's name.
    folder : RunFolder
        Where records go; the caller holds its lock.
    way : Way
        How cells are executed.
    console : Console
        Where messages go.

    Raises
    ------
    StoreError
        The disk is full, say; what has ended is kept.
    KeyboardInterrupt
        Ctrl-C, or a polite kill.
    """
    if not todo.todo:
        return _held(folder.records(todo.stored))
    from qbench.runner.durations import Durations
    from qbench.runner.local import cores
    from qbench.runner.run import run as run_plan

    offline = not any(one.cell.needs_hub() for one in todo.todo)
    times = Durations.of(todo.held)
    executor: Executor
    if way.cluster is not None:
        todo = on_ray.in_order(todo, suite)
        progress = Progress(todo.todo, times, cores())
        executor = on_ray.executor(todo, way, offline, console, progress.resize)
    else:
        executor = here = _on_this_machine(folder, way, offline)
        progress = Progress(todo.todo, times, here.jobs)
    with (View if console.is_terminal else Log)(progress, console) as shown:
        try:
            with _terminated_as_interrupted():
                return _held(run_plan(todo, suite, folder, executor, shown.done, shown.begun))
        except KeyboardInterrupt:
            console.print(f"stopped: what has ended is in {folder.path}; the same command goes on from there")
            raise
        except UnwritableError as error:
            raise StoreError(
                f"{error}: stopped; what has ended is kept, and the same command goes on from there"
            ) from error


def _held(records: Mapping[str, Record]) -> Mapping[str, Record]:
    """Return records that can be gone through often: in memory, unless they are so many that they would fill it."""
    return dict(records) if len(records) <= _MOST_HELD else records


def _on_this_machine(folder: RunFolder, way: Way, offline: bool) -> LocalExecutor:
    from qbench.runner.local import LocalExecutor, cores

    if way.device == "cuda":
        from qbench.runner.machine import resolve_device

        resolve_device(way.device)  # before processes are started for nothing
    jobs = way.jobs or (1 if on_gpu(way.device) else max(1, cores() // (way.threads or 1)))
    return LocalExecutor(
        jobs,
        way.device,
        offline,
        way.timeout,
        way.threads,
        way.environment,
        folder.checkpoint_path,
        way.checkpoint_seconds,
    )


def on_gpu(device: str) -> bool:
    """Whether cells will run on a GPU."""
    if device != "auto":
        return device == "cuda"
    # Asking torch would load it into this process, which needs nothing else of it.
    return Path("/proc/driver/nvidia/gpus").exists()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: no process of its own is left, and it says where it can go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

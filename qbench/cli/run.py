"""`qbench run`: execute a suite, print its leaderboard, compare with the baseline."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qbench.cli import options
from qbench.cli.selection import select


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench run --suite smoke   |   "
        "qbench run --suite llm_lowbit --only 'method=rtn|gptq,bits=2' --seeds 1"
    )(run)


def run(
    suite: options.SuiteOption,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes  [default: one a core, or one on a GPU]", show_default=False)
    ] = None,
    out: options.OutOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do stored cells again.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Run a suite: what is stored already is not run again; a run that was stopped goes on where it was.

    Prints the leaderboard, what its cells say of the claims, and the comparison with the baseline.

    Ends with 1 where a cell failed or fell back, or where the comparison with the baseline shows a regression.
    """
    from qbench.claims.catalogue import all_claims, judge
    from qbench.report.leaderboard import leaderboard
    from qbench.report.text import render_text
    from qbench.runner.local import check_device
    from qbench.runner.run import plan
    from qbench.store.comparison import compare
    from qbench.store.folder import RunFolder
    from qbench.suite.enumerate import axes_of, measured_cells, places

    check_device(device)
    loaded, cells = select(suite, seeds, only)
    folder = RunFolder(options.run_path(loaded.name, out))
    console = options.console()
    baseline = _baseline(loaded.name)  # one that cannot be read is told of before anything is run
    for model in {cell.model for cell in cells if cell.skip is None}:
        with console.status(f"fetching what {model.label()} needs"):
            model.prepare()  # type: ignore[attr-defined]
    with folder.lock():
        todo = plan(cells, folder, fresh=fresh)
        for path, reason in todo.corrupt.items():
            console.print(f"warning: {path} is no record ({reason}): its cell is run again")
        console.print(
            f"{loaded.name}: {len(todo.todo)} cells to run, {len(todo.stored)} from the records in {folder.path}, "
            f"{len(todo.skipped)} skipped by the suite",
        )
        records = _execute(todo, loaded.name, folder, device, jobs, console)
    board = leaderboard(records.values(), places(cells))
    labels = [cell.label() for cell in measured_cells(cells) if cell.skip is None]
    comparison = None if baseline is None else compare(records.values(), baseline, labels)
    judged = judge(records.values(), axes_of(cells))
    if json:
        found = {
            "leaderboard": board.to_json(),
            "claims": [one.to_json() for one in judged],
            "comparison": None if comparison is None else comparison.to_json(),
        }
        options.print_json(found)
    else:
        from qbench.report.claims import render_claims
        from qbench.report.comparison import render_comparison
        from qbench.report.probes import render_probes

        typer.echo(render_text(board))
        if probes := render_probes(records.values(), cells):
            typer.echo("\n" + probes)
        typer.echo("\n" + render_claims(judged, list(all_claims())))
        path = options.baseline_path(loaded.name)
        typer.echo(
            f"\nno baseline at {path}: `qbench bless --suite {suite}` makes one"
            if comparison is None
            else "\n" + render_comparison(comparison)
        )
    unclean = [record.label for record in records.values() if not record.clean]
    if unclean or (comparison is not None and comparison.regressed):
        raise typer.Exit(1)


def _execute(todo: Any, suite: str, folder: Any, device: str, jobs: int | None, console: Console) -> dict[str, Any]:
    if not todo.todo:
        return dict(todo.stored)
    from qbench.runner.local import LocalExecutor, cores
    from qbench.runner.run import run as run_plan

    if device == "cuda":
        from qbench.runner.machine import resolve_device

        resolve_device(device)  # a worker could not say so in one line
    offline = not any(one.cell.model.needs_hub() for one in todo.todo)
    executor = LocalExecutor(jobs or (1 if _on_gpu(device) else cores()), device, offline)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("cells", total=len(todo.todo))

        def done(record: Any) -> None:
            progress.update(bar, advance=1, description=record.label)
            # A cell behind a failed full-precision cell has nothing new to say.
            if record.status not in ("ok", "skipped"):
                console.print(f"{record.label}: {record.status}: {record.reason}")

        try:
            with _terminated_as_interrupted():
                records: dict[str, Any] = run_plan(todo, suite, folder, executor, done)
        except KeyboardInterrupt:
            console.print(f"stopped: what has ended is in {folder.path}; the same command goes on from there")
            raise
    return records


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


def _on_gpu(device: str) -> bool:
    if device != "auto":
        return device == "cuda"
    # Asking torch would load it into this process, which needs nothing else of it.
    return Path("/proc/driver/nvidia/gpus").exists()


def _baseline(suite: str) -> Any:
    from qbench.store.baseline import read_baseline

    path = options.baseline_path(suite)
    return read_baseline(path) if path.exists() else None

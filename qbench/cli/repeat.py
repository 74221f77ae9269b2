"""`qbench repeat`: a suite's cells again under other arithmetic, to measure how far rounding errors move them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import executing, options
from qbench.cli.selection import select

if TYPE_CHECKING:
    from qbench.runner.arithmetic import Arithmetic
    from qbench.store.record import Record


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench repeat --suite llm_lowbit   |   qbench repeat -s llm_lowbit --times 4 --seeds 1"
    )(repeat)


def repeat(
    suite: options.SuiteOption,
    times: Annotated[int, typer.Option(min=1, help="How often; what is there already counts.")] = 3,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    device: executing.DeviceOption = "auto",
    jobs: executing.JobsOption = None,
    timeout: executing.TimeoutOption = None,
    out: options.OutOption = None,
    fresh: executing.FreshOption = False,
) -> None:
    """Run a suite's cells again under other arithmetic, for `qbench bless` to measure the noise of each method by.

    On a CPU with narrower vector instructions and other numbers of threads, on a GPU as they are. Each repeat is
    kept in RUNFOLDER/repeats/NUMBER, and goes on like any run where it was stopped.

    Ends with 1 where a cell failed or fell back.
    """
    from qbench.runner.local import check_device
    from qbench.runner.planning import plan
    from qbench.store.folder import RunFolder
    from qbench.suite.enumerate import measured_cells

    check_device(device)
    seconds = executing.seconds_of(timeout)
    loaded, selected = select(suite, seeds, only)
    cells = measured_cells(selected)
    run_folder = RunFolder(options.run_path(loaded.name, out))
    console = options.console()
    ways = _ways(list(run_folder.scan().records.values()), device, jobs)
    unclean = False
    for number in range(1, times + 1):
        folder = RunFolder(run_folder.path / "repeats" / str(number))
        how = None if not ways else ways[(number - 1) % len(ways)]
        way = executing.Way(device, jobs, seconds)
        said = "as before"
        if how is not None:
            way = executing.Way(device, jobs, seconds, how.threads, how.environment)
            said = f"{how.capability} instructions, {how.threads} thread{'s' * (how.threads > 1)} a process"
        with folder.lock():
            executing.fetch(cells, console)
            todo = plan(cells, folder, fresh=fresh)
            counts = f"{len(todo.todo)} cells to run, {len(todo.stored)} from the records in {folder.path}"
            console.print(f"{loaded.name}, repeat {number} of {times} ({said}): {counts}")
            records = executing.execute(todo, loaded.name, folder, way, console)
        unclean |= any(not record.clean for record in records.values())
    if unclean:
        raise typer.Exit(1)


def _ways(records: list[Record], device: str, jobs: int | None) -> list[Arithmetic]:
    """Return the ways to compute that the run's records were not made in; none on a GPU."""
    if executing.on_gpu(device):
        return []
    import torch

    from qbench.runner.arithmetic import others
    from qbench.runner.local import cores

    native = torch.backends.cpu.get_cpu_capability()
    taken = {
        (str(record.environment["cpu_capability"]), int(record.environment["threads"]))
        for record in records
        if {"cpu_capability", "threads"} <= set(record.environment)
    }
    return others(native, cores(), taken or {(native, max(1, cores() // (jobs or cores())))})

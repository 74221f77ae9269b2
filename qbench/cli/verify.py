"""`qbench verify`: whether stored results are what comes out when their cells are run again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbench.cli import comparing, executing, options, records
from qbench.cli.selection import select
from qbench.errors import QBenchError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qbench.runner.identity import PlannedCell
    from qbench.runner.verify import Verified
    from qbench.store.record import Record

_LONGEST = 40  # letters of a value in the table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench verify smoke   |   qbench verify results/runs/llm_lowbit --sample 20 --seed 1   |   "
        "qbench verify mine.yaml --out run --sample all --only method=gptq"
    )(verify)


def verify(
    run: Annotated[str, typer.Argument(help="A suite, or a folder of records.", metavar="RUN")],
    suite: Annotated[
        str | None,
        typer.Option("--suite", "-s", help="The suite of a folder of records  [default: its own]", show_default=False),
    ] = None,
    sample: Annotated[str, typer.Option(help="How many stored cells, or 'all'.")] = "5",
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other cells.")] = 0,
    only: options.OnlyOption = None,
    device: executing.DeviceOption = "auto",
    jobs: executing.JobsOption = None,
    timeout: executing.TimeoutOption = None,
    out: options.OutOption = None,
    json: options.JsonOption = False,
) -> None:
    """Run a sample of stored cells again, in a folder of its own, and compare; what is stored is not touched.

    On the same ground (device, versions, threads) every number and every weight has to be the same to the last bit.
    On other ground the loss may move by the tolerance that the suite's baseline has measured, .002 nats at least,
    or by .02 nats where none is measured. Ends with 1 where a result is another, or a cell does not run any more.
    """
    from qbench.runner.local import check_device
    from qbench.runner.run import plan
    from qbench.runner.verify import draw, judge
    from qbench.store.folder import RunFolder

    check_device(device)
    count, seconds = _count(sample), executing.seconds_of(timeout)
    given, folder_path = _place(run, suite, out)
    loaded, cells = select(given, only=only)
    source = RunFolder(folder_path if folder_path is not None else options.run_path(loaded.name, out))
    console = options.console()
    executing.fetch(cells, console)
    found = plan(cells, source)
    drawable = _drawable([one for one in _planned(cells) if one.cell_id in found.stored], source)
    if not drawable:
        raise StoreError(
            f"{source.path} holds no sound record of {loaded.name} as it is now: `qbench run --suite {given}` makes "
            f"them, `qbench why CELL --suite {given}` says why a record does not count"
        )
    drawn = draw(drawable, count, loaded.name, seed)
    console.print(f"{loaded.name}: {len(drawn)} of {len(drawable)} sound cells in {source.path} are run again")
    way = executing.Way(device, jobs, seconds)
    again = _run_again(drawn, found.stored, source, loaded.name, way, console)
    bound = _bounds(loaded.name, again)
    verdicts = [judge(found.stored[one.cell_id], again[one.cell_id], bound(again[one.cell_id])) for one in drawn]
    if json:
        options.print_json(
            {
                "suite": loaded.name,
                "folder": str(source.path),
                "drawn": len(drawn),
                "of": len(drawable),
                "seed": seed,
                "sound": not any(one.red for one in verdicts),
                "cells": [one.to_json() for one in verdicts],
            }
        )
    else:
        _show(verdicts)
    if any(one.red for one in verdicts):
        raise typer.Exit(1)


def _count(sample: str) -> int | None:
    if sample == "all":
        return None
    if not sample.isascii() or not sample.isdigit() or int(sample) < 1:
        raise QBenchError(f"--sample {sample!r} is no number of cells (allowed: 1 or more, or all)")
    return int(sample)


def _place(run: str, suite: str | None, out: Path | None) -> tuple[str, Path | None]:
    """Return the suite, and the folder where `run` is one."""
    from qbench.suite.load import list_suites

    if not Path(run).is_dir():
        if suite is not None:
            raise QBenchError(f"{run!r} is no folder: --suite is for a folder of records")
        return run, None
    if out is not None:
        raise QBenchError(f"{run} is a folder of records already: leave out --out")
    if suite is not None:
        return suite, Path(run)
    names = sorted({record.suite for record in records.stored(Path(run)).values()})
    if not names:
        raise StoreError(f"{run} holds no records: name a folder that `qbench run` wrote, or a suite")
    if len(names) > 1 or names[0] not in list_suites():
        raise QBenchError(f"{run} holds records of {', '.join(names)}: say --suite, a shipped suite or its file")
    return names[0], Path(run)


def _planned(cells: list[Any]) -> list[PlannedCell]:
    from qbench.runner.identity import identify

    return [identify(cell) for cell in cells if cell.skip is None]


def _drawable(stored: list[PlannedCell], source: Any) -> list[PlannedCell]:
    """Return those that can be run again: of a probe, the weights that it reads have to be there."""
    return [one for one in stored if all(source.weights_path(point).exists() for point in one.points.values())]


def _run_again(
    drawn: list[PlannedCell], stored: dict[str, Record], source: Any, suite: str, way: executing.Way, console: Any
) -> dict[str, Record]:
    from dataclasses import replace

    from qbench.runner.verify import by_threads, plan_again
    from qbench.store.folder import RunFolder

    again: dict[str, Record] = {}
    with tempfile.TemporaryDirectory(prefix="qbench-verify-") as place:
        target = RunFolder(Path(place))
        for threads, group in by_threads(drawn, stored).items():
            todo = plan_again(group, source, target)
            again |= executing.execute(todo, suite, target, replace(way, threads=threads), console)
    return again


def _bounds(suite: str, again: dict[str, Record]) -> Callable[[Record], float]:
    """Return how far the loss of a cell may move on other ground: as the baseline of this class of device says."""
    from qbench.runner.verify import BOUND, FLOOR
    from qbench.store.ground import device_class
    from qbench.store.tolerance import Tolerances

    baseline = comparing.read(suite)
    results = {} if baseline is None else baseline.devices
    tolerances = {kind: Tolerances(part) for kind, part in results.items()}

    def bound(record: Record) -> float:
        kind = device_class(record.environment)
        cell = results[kind].cells.get(record.label) if kind in results else None
        if cell is None:
            return BOUND
        tolerance = tolerances[kind].of(cell, alike=False)
        return max(FLOOR, tolerance.loss) if tolerance.measured else BOUND

    return bound


def _show(verdicts: list[Verified]) -> None:
    from tabulate import tabulate

    from qbench.report.numbers import compact

    rows = []
    for one in sorted(verdicts, key=lambda one: not one.red):
        first = one.differences[0] if one.differences else None
        more = f" and {len(one.differences) - 1} more" if len(one.differences) > 1 else ""
        what = one.reason or ("" if first is None else f"{first.what}{more}")
        values = ("", "") if first is None else (first.first[:_LONGEST], first.second[:_LONGEST])
        bound = "" if one.bound is None else f"|dL| {compact(abs(one.change or 0.0))} <= {compact(one.bound)}"
        if one.outcome == "differs" and one.bound is not None:
            bound = bound.replace("<=", ">")
        rows.append((one.outcome, one.label, what, *values, bound))
    typer.echo(tabulate(rows, headers=("", "cell", "differs first", "stored", "now", "bound"), disable_numparse=True))
    for name, (before, now) in {name: pair for one in verdicts for name, pair in one.ground.items()}.items():
        typer.echo(f"other ground: {name} {before} -> {now}")
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in {one.outcome for one in verdicts}}
    typer.echo(f"{len(verdicts)} cells run again: " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts)))

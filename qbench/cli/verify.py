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
    from qbench.runner.soundness import Survey
    from qbench.runner.verify import Verified
    from qbench.store.record import Record

_LONGEST = 40  # letters of a value in the table
_MOST_NAMED = 4  # cells without a record


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
    or by .02 nats where none is measured. All stored cells are looked at before any is drawn.
    Ends with 1 where a result is another, a cell does not run any more, or a stored cell is not as it was written.
    """
    from qbench.runner.local import check_device
    from qbench.runner.soundness import survey
    from qbench.runner.verify import draw, judge
    from qbench.store.folder import RunFolder

    check_device(device)
    count, seconds = _count(sample), executing.seconds_of(timeout)
    given, folder_path = _place(run, suite, out)
    loaded, cells = select(given, only=only)
    source = RunFolder(folder_path if folder_path is not None else options.run_path(loaded.name, out))
    console = options.console()
    executing.fetch(cells, console)
    found = survey(_planned(cells), source)
    for path, reason in found.strays.items():
        console.print(f"warning: {path} is no record ({reason}); it is of none of these cells")
    if not (found.sound or found.unsound or found.ended_badly):
        raise StoreError(
            f"{source.path} holds no record of {loaded.name} as it is now: `qbench run --suite {given}` makes "
            f"them, `qbench why CELL --suite {given}` says why a record does not count"
        )
    drawn = draw(found.sound, count, loaded.name, seed)
    console.print(f"{loaded.name}: {len(drawn)} of {len(found.sound)} sound cells in {source.path} are run again")
    way = executing.Way(device, jobs, seconds)
    again = _run_again(drawn, found.records, source, loaded.name, way, console)
    bound = _bounds(loaded.name, again)
    verdicts = [judge(found.records[one.cell_id], again[one.cell_id], bound(again[one.cell_id])) for one in drawn]
    red = bool(found.unsound) or any(one.red for one in verdicts) or not found.sound
    if json:
        options.print_json(
            {
                "suite": loaded.name,
                "folder": str(source.path),
                "drawn": len(drawn),
                "of": len(found.sound),
                "seed": seed,
                "sound": not red,
                "cells": [one.to_json() for one in verdicts],
                "unsound": [one._asdict() for one in found.unsound],
                "ended_badly": found.ended_badly,
                "no_record": found.absent,
                "strays": {str(path): reason for path, reason in found.strays.items()},
            }
        )
    else:
        _show(verdicts)
        _show_others(found)
    if red:
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
    from qbench.store.ground import device_class
    from qbench.store.tolerance import FLOOR, UNMEASURED, Tolerances

    baseline = comparing.read(suite)
    results = {} if baseline is None else baseline.devices
    tolerances = {kind: Tolerances(part) for kind, part in results.items()}

    def bound(record: Record) -> float:
        kind = device_class(record.environment)
        cell = results[kind].cells.get(record.label) if kind in results else None
        if cell is None:
            return UNMEASURED
        tolerance = tolerances[kind].of(cell, alike=False)
        return max(FLOOR, tolerance.loss) if tolerance.measured else UNMEASURED

    return bound


def _show(verdicts: list[Verified]) -> None:
    from qbench.report.fitting import noted_table, wrap
    from qbench.report.numbers import compact

    if not verdicts:
        return
    rows, notes = [], []
    for one in sorted(verdicts, key=lambda one: not one.red):
        first = one.differences[0] if one.differences else None
        more = f" and {len(one.differences) - 1} more" if len(one.differences) > 1 else ""
        what = one.reason or ("" if first is None else f"{first.what}{more}")
        values = ("", "") if first is None else (first.first[:_LONGEST], first.second[:_LONGEST])
        bound = "" if one.bound is None else f"|dL| {compact(abs(one.change or 0.0))} <= {compact(one.bound)}"
        if one.outcome == "differs" and one.bound is not None:
            bound = bound.replace("<=", ">")
        rows.append((one.outcome, *values, bound))
        notes.append(f"{one.label}: {what}" if what else one.label)
    typer.echo(noted_table(("verdict", "stored", "now", "bound"), rows, notes, options.text_width()))
    for name, (before, now) in {name: pair for one in verdicts for name, pair in one.ground.items()}.items():
        typer.echo(wrap(f"other ground: {name} {before} -> {now}", options.text_width()))
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in {one.outcome for one in verdicts}}
    typer.echo(f"{len(verdicts)} cells run again: " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts)))


def _show_others(found: Survey) -> None:
    """Tell of the cells that could not be drawn."""
    for one in found.unsound:
        typer.echo(f"not sound: {one.label}: {one.state}: {one.reason}")
    if found.unsound:
        typer.echo(f"{len(found.unsound)} stored cells are not as they were written")
    if found.ended_badly:
        label, reason = next(iter(found.ended_badly.items()))
        more = f", such as {label} ({reason:.120})"
        typer.echo(f"{len(found.ended_badly)} stored cells have no result that could be compared{more}")
    if found.absent:
        more = f" and {len(found.absent) - _MOST_NAMED} more" if len(found.absent) > _MOST_NAMED else ""
        typer.echo(f"{len(found.absent)} cells have no record: {', '.join(found.absent[:_MOST_NAMED])}{more}")

"""`qbench plan`: the dry run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import typer

from qbench.cli import options
from qbench.cli.selection import select

if TYPE_CHECKING:
    from qbench.runner.planning import Plan


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(name="plan", epilog="Example:  qbench plan --suite llm_lowbit --only bits=2")(plan)


def plan(
    suite: options.SuiteOption,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    shard: options.ShardOption = None,
    out: options.OutOption = None,
    json: options.JsonOption = False,
) -> None:
    """Show what `qbench run` would do: cells to run, stored cells, skipped cells with reasons, and an estimate."""
    from qbench.report.fitting import wrap
    from qbench.runner.planning import plan as make_plan
    from qbench.store.folder import RunFolder

    loaded, cells = select(suite, seeds, only, shard)
    folder = RunFolder(options.run_path(loaded.name, out))
    found = make_plan(cells, folder)
    seconds = _estimate(found)
    reasons = Counter(cell.skip for cell in found.skipped)
    if json:
        options.print_json(
            {
                "suite": loaded.name,
                "run": [{"cell_id": one.cell_id, "label": one.cell.label()} for one in found.todo],
                "stored": sorted(record.label for record in found.stored.values()),
                "skipped": [{"label": cell.label(), "reason": cell.skip} for cell in found.skipped],
                "estimated_cell_seconds": seconds,
            }
        )
        return
    width = options.line_width()
    for one in found.todo:
        typer.echo(wrap(f"run   {one.cell_id[:12]}  {one.cell.label()}", width, indent=" " * 20))
    for reason, count in reasons.items():
        typer.echo(wrap(f"skip  {count} cells: {reason}", width))
    typer.echo(f"{len(found.todo)} cells to run, {len(found.stored)} stored, {len(found.skipped)} skipped")
    if hub := sum(one.cell.needs_hub() for one in found.todo):
        typer.echo(f"{hub} of them read a model, a text or a task from the hub: without a network they fail")
    if seconds is not None:
        typer.echo(f"about {seconds / 60:.0f} process-minutes, going by stored cells of the same methods")


def _estimate(plan: Plan) -> float | None:
    """Return process-seconds by what stored cells of the same methods took; None when of one there is none."""
    from qbench.runner.durations import Durations, kind_of

    seconds, known = Durations.of(plan.held).left([kind_of(one.cell) for one in plan.todo], [], jobs=1)
    return seconds if known else None

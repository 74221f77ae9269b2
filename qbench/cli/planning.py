"""`qbench plan`: the dry run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import cluster, options
from qbench.cli.selection import select
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.runner.planning import Plan

NodesOption = Annotated[
    int | None,
    typer.Option(
        "--nodes",
        min=1,
        help="With --executor ray: of how many nodes like this machine  [default: 1, 4 and 16]",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        name="plan",
        epilog="Examples:  qbench plan --suite llm_lowbit --only bits=2   |   "
        "qbench plan --suite llm_lowbit --executor ray --nodes 8",
    )(plan)


def plan(
    suite: options.SuiteOption,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    shard: options.ShardOption = None,
    out: options.OutOption = None,
    executor: cluster.ExecutorOption = "local",
    address: cluster.AddressOption = None,
    nodes: NodesOption = None,
    cpus_per_cell: cluster.CpusOption = None,
    gpus_per_cell: cluster.GpusOption = None,
    json: options.JsonOption = False,
) -> None:
    """Show what `qbench run` would do: cells to run, stored cells, skipped cells with reasons, and an estimate.

    With --executor ray also what cells take of a node, the node-hours, and how long nodes like this machine take, or
    with --address those of a cluster that is running. The package ray is needed for --address alone.
    """
    cluster.check(executor, address, cpus_per_cell, gpus_per_cell)
    if nodes is not None and executor != "ray":
        raise QBenchError(f"--nodes: for --executor ray only (this is --executor {executor})")
    from qbench.cli.node_plan import node_plan
    from qbench.report.fitting import wrap
    from qbench.runner.planning import plan as make_plan
    from qbench.store.folder import RunFolder

    loaded, cells = select(suite, seeds, only, shard)
    folder = RunFolder(options.run_path(loaded.name, out))
    found = make_plan(cells, folder)
    seconds = _estimate(found)
    on_nodes = None
    if executor == "ray":
        with options.console().status("working out what cells need"):
            on_nodes = node_plan(found, loaded.name, address, cpus_per_cell, gpus_per_cell, nodes)
    reasons = Counter(cell.skip for cell in found.skipped)
    if json:
        options.print_json(
            {
                "suite": loaded.name,
                "run": [{"cell_id": one.cell_id, "label": one.cell.label()} for one in found.todo],
                "stored": sorted(record.label for record in found.stored.values()),
                "skipped": [{"label": cell.label(), "reason": cell.skip} for cell in found.skipped],
                "estimated_cell_seconds": seconds,
                **({} if on_nodes is None else {"ray": on_nodes.to_json()}),
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
    for line in [] if on_nodes is None else on_nodes.lines():
        typer.echo(wrap(line, width))


def _estimate(plan: Plan) -> float | None:
    """Return process-seconds by what stored cells of the same methods took; None when of one there is none."""
    from qbench.runner.durations import Durations, kind_of

    waiting = Counter(kind_of(one.cell) for one in plan.todo)
    seconds, known = Durations.of(plan.held).left(waiting, [], jobs=1)
    return seconds if known else None

"""`qbench bless`: make stored records the baseline."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from qbench.cli import comparing, options, records
from qbench.cli.selection import select
from qbench.errors import QBenchError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench bless --suite llm_lowbit   |   "
        "qbench bless -s llm_lowbit --only method=gptq --reason 'act_order is the default now' --yes"
    )(bless)


def bless(
    suite: options.SuiteOption,
    out: options.OutOption = None,
    only: options.OnlyOption = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why; kept in the baseline's history.", show_default=False)
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", help="Label of a failed or missing cell that is expected to be so from now on."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show every row of the diff.")] = False,
) -> None:
    """Make the stored records, with their repeats, the baseline: results/baselines/SUITE.json.

    Shows first what that changes, tolerances included. Every cell must be there and clean, or accepted. A reason is
    needed where anything comes in but new cells. Baselines of other classes of device stay as they are, and so do the
    cells that --only leaves out.
    """
    from qbench.report.blessing import render_change
    from qbench.store.baseline import Baseline, write_baseline
    from qbench.store.blessing import Request, prepare, sealed
    from qbench.store.folder import repeat_folders
    from qbench.store.gathering import gather, one_class
    from qbench.suite.enumerate import measured_labels

    loaded, cells = select(suite, None, only)
    held = records.current(loaded, cells, out)
    device = one_class(held)
    baseline = comparing.read(loaded.name) or Baseline(suite=loaded.name, devices={})
    repeats = [records.stored(path).values() for path in repeat_folders(options.run_path(loaded.name, out))]
    labels = frozenset(measured_labels(cells))
    request = Request(loaded.name, device, labels, partial=only is not None, accept=tuple(accept or ()))
    date = datetime.now(UTC).date().isoformat()
    old = baseline.devices.get(device)
    merged, change = prepare(old, gather(held, repeats), request, reason=reason or "", date=date)
    if change.nothing:
        typer.echo(f"nothing to bless: the baseline of {device} is what was run")
        return
    options.show(render_change(change, everything=everything))
    why = (reason or "").strip() or change.default_reason
    if dry_run:
        typer.echo("nothing written" + ("" if why else "; blessing this needs a --reason"))
        return
    if not why:
        raise QBenchError("not blessed: more than new cells comes in, so say why with --reason")
    if not yes:
        if not sys.stdin.isatty():
            raise QBenchError("not blessed: there is no terminal to ask on, so look at the diff and say --yes")
        if not typer.confirm("Make this the baseline?"):
            typer.echo("nothing written")
            raise typer.Exit(1)
    path = options.baseline_path(loaded.name)
    done = "replaced" if path.exists() else "wrote"
    devices = {**baseline.devices, device: sealed(merged, change, reason=why, date=date)}
    write_baseline(path, Baseline(suite=loaded.name, devices=devices))
    typer.echo(f"{done} {path}: {len(merged.cells)} cells on {device}")

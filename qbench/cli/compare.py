"""`qbench compare`: stored records against the baseline."""

from __future__ import annotations

from typing import Annotated

import typer

from qbench.cli import options, records
from qbench.cli.selection import select
from qbench.errors import StoreError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench compare --suite llm_lowbit   |   qbench compare -s llm_lowbit --only bits=2 --all"
    )(compare)


def compare(
    suite: options.SuiteOption,
    out: options.OutOption = None,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every row, not only the worst.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Compare what is stored with the baseline; ends with 1 where something regressed."""
    from qbench.report.comparison import render_comparison
    from qbench.store.baseline import read_baseline
    from qbench.store.comparison import compare as compare_records
    from qbench.suite.enumerate import measured_cells

    loaded, cells = select(suite, seeds, only)
    path = options.baseline_path(loaded.name)
    if not path.exists():
        raise StoreError(f"no baseline at {path}: `qbench bless --suite {suite}` makes one")
    labels = [cell.label() for cell in measured_cells(cells) if cell.skip is None]
    found = compare_records(records.current(loaded, cells, out), read_baseline(path), labels)
    if json:
        options.print_json(found.to_json())
    else:
        typer.echo(render_comparison(found, everything=everything))
    if found.regressed:
        raise typer.Exit(1)

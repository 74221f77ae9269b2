"""`qbench bless`: make stored records the baseline."""

from __future__ import annotations

from typing import Annotated

import typer

from qbench.cli import options, records
from qbench.cli.selection import select


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Example:  qbench run --suite llm_lowbit && qbench bless --suite llm_lowbit")(bless)


def bless(
    suite: options.SuiteOption,
    out: options.OutOption = None,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="Label of a failed or missing cell to bless all the same.")
    ] = None,
) -> None:
    """Write results/baselines/SUITE.json from the stored records; every cell must be there and clean."""
    from qbench.store.baseline import make_baseline, write_baseline
    from qbench.suite.enumerate import measured_cells

    loaded, cells = select(suite)
    found = make_baseline(records.current(loaded, cells, out), suite=loaded.name)
    path = options.baseline_path(loaded.name)
    done = "replaced" if path.exists() else "wrote"
    labels = [cell.label() for cell in measured_cells(cells) if cell.skip is None]
    write_baseline(path, found, expected_labels=labels, accepted=accept or [])
    typer.echo(f"{done} {path}: {len(found.cells)} cells")

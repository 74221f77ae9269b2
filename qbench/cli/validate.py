"""`qbench validate`: check a suite file."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from qbench.cli import options
from qbench.cli.selection import select
from qbench.errors import AssetError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Example:  qbench validate my_suite.yaml")(validate)


def validate(
    suite: Annotated[str, typer.Argument(help="A shipped suite's name, or a path to a suite file.")],
    json: options.JsonOption = False,
) -> None:
    """Check a suite file, and that the models and texts it names are there; ends with 2 where it is wrong."""
    loaded, cells = select(suite)
    for model, seed in dict.fromkeys((cell.model, cell.seed) for cell in cells if cell.skip is None):
        try:
            model.fingerprint(seed)  # type: ignore[attr-defined]
        except AssetError as error:
            raise AssetError(f"{loaded.file}: model {model.label()}: {error}") from error
    counts = {
        "cells": sum(cell.skip is None for cell in cells),
        "full_precision": sum(cell.skip is None and cell.is_fp for cell in cells),
        "probes": sum(cell.skip is None and cell.is_probe for cell in cells),
        "skipped": sum(cell.skip is not None for cell in cells),
    }
    if json:
        options.print_json({"suite": loaded.name, **counts})
        return
    typer.echo(
        f"{loaded.name}: sound: {counts['cells']} cells ({counts['full_precision']} of them full precision"
        f"{', {} probes'.format(counts['probes']) if counts['probes'] else ''}), "
        f"{counts['skipped']} skipped"
    )
    for reason, count in Counter(cell.skip for cell in cells if cell.skip is not None).items():
        typer.echo(f"  skipped {count}: {reason}")

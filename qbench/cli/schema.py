"""`qbench schema`: what a suite file may say, for editors."""

from __future__ import annotations

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench schema > suite.schema.json   |   qbench schema --suite mine.yaml > mine.schema.json"
    )(schema)


def schema(
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="Also what the plugins of this suite bring.")
    ] = None,
) -> None:
    """Print the JSON schema of suite files, with which an editor completes and checks them.

    A suite names it in its first line: `# yaml-language-server: $schema=suite.schema.json`.
    """
    from qbench.reference.json_schema import render, suite_schema
    from qbench.registry import scope
    from qbench.suite.load import load_suite

    with scope(load_suite(suite).plugin_names if suite else ()):
        typer.echo(render(suite_schema()), nl=False)

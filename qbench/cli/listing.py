"""`qbench list`: what can be named in a suite."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from qbench.cli import options
from qbench.errors import QBenchError, UnknownNameError
from qbench.registry import Registry

_KINDS = ("suites", "models", "quantizers", "methods", "assets")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(name="list", epilog="Examples:  qbench list   |   qbench list methods --json")(list_names)


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="suites, models, quantizers, methods or assets; all when left out.")
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """List suites, models, quantizers, methods and assets."""
    from tabulate import tabulate

    if kind is not None and kind not in _KINDS:
        raise UnknownNameError("kind", kind, _KINDS)
    found = {name: _about(name) for name in _KINDS if kind in (None, name)}
    if json:
        options.print_json(found)
        return
    for name, rows in found.items():
        typer.echo(tabulate(sorted(rows.items()), headers=[name, ""], tablefmt="plain") + "\n")


def _about(kind: str) -> dict[str, str]:
    from qbench.registry import METHODS, MODELS, QUANTIZERS
    from qbench.suite.load import list_suites, load_suite
    from qbench.tasks import assets, zoo

    if kind == "suites":
        return {name: load_suite(name).about for name in list_suites()}
    if kind == "assets":
        return {name: f"{asset.about} ({asset.licence})" for name, asset in assets.manifest().items()}
    registry = {"models": MODELS, "quantizers": QUANTIZERS, "methods": METHODS}[kind]
    if kind == "models":
        known = {name: model.about for name, model in zoo.models().items()}
    else:
        known = {}
    return {name: known.get(name) or _first_line(registry, name) for name in registry.names()}


def _first_line(registry: Registry, name: str) -> str:
    try:
        return (inspect.getdoc(registry.get(name)) or "").split("\n")[0]
    except QBenchError as error:  # one broken plugin must not hide the others
        return f"cannot be used: {error}"

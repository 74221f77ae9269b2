"""`qbench list`: what can be named in a suite."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, NamedTuple

import typer

from qbench.cli import options
from qbench.errors import QBenchError, UnknownNameError

_KINDS = ("suites", "models", "quantizers", "methods", "assets")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        name="list",
        epilog="Examples:  qbench list   |   qbench list methods --json   |   qbench list quantizers --suite mine.yaml",
    )(list_names)


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="suites, models, quantizers, methods or assets; all when left out.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="Also what the plugins of this suite bring.")
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """List suites, models, quantizers, methods and assets, and where names come from that are not built in."""
    from tabulate import tabulate

    from qbench.registry import scope
    from qbench.suite.load import load_suite

    if kind is not None and kind not in _KINDS:
        raise UnknownNameError("kind", kind, _KINDS)
    with scope(load_suite(suite).plugin_names if suite else ()):
        found = {name: _about(name) for name in _KINDS if kind in (None, name)}
    if json:
        options.print_json({name: {one: row._asdict() for one, row in rows.items()} for name, rows in found.items()})
        return
    for name, rows in found.items():
        # Suites and assets have one source only.
        told: list[tuple[str, ...]] = [(one, *row) for one, row in sorted(rows.items())]
        headers = [name, "from", ""]
        if name in ("suites", "assets"):
            told, headers = [(one, about) for one, _, about in told], [name, ""]
        typer.echo(tabulate(told, headers=headers, tablefmt="plain") + "\n")


class _Row(NamedTuple):
    origin: str
    about: str


def _about(kind: str) -> dict[str, _Row]:
    from qbench.registry import METHODS, MODELS, QUANTIZERS
    from qbench.suite.load import list_suites, load_suite
    from qbench.tasks import assets, zoo

    if kind == "suites":
        return {name: _Row("built in", _told(lambda name: load_suite(name).about, name)) for name in list_suites()}
    if kind == "assets":
        return {name: _Row("built in", f"{one.about} ({one.licence})") for name, one in assets.manifest().items()}
    registry = {"models": MODELS, "quantizers": QUANTIZERS, "methods": METHODS}[kind]
    known = {name: model.about for name, model in zoo.models().items()} if kind == "models" else {}

    def about(name: str) -> str:
        return (inspect.getdoc(registry.get(name)) or "").split("\n")[0]

    return {
        name: _Row(registry.origin(name), _told(about, name) if name not in known else known[name])
        for name in registry.names()
    }


def _told(about: Callable[[str], str], name: str) -> str:
    try:
        return about(name)
    except QBenchError as error:  # one broken plugin must not hide the others
        return f"cannot be used: {' '.join(str(error).split())}"

"""`qbench doctor`: what a machine has, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options

if TYPE_CHECKING:
    from qbench.doctor.finding import Finding

_INDENT = 22  # where the words of `Finding.line` begin


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Example:  qbench doctor")(doctor)


def doctor(
    online: Annotated[bool, typer.Option("--online", help="Also ask whether assets could be fetched.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Look at Python, torch, packages, disk, assets, plugins, suites and stored runs, and say what to type.

    Each line is ok, a warning, or broken; ends with 1 where something is broken. Nothing is changed.
    """
    from qbench.report.fitting import wrap

    found, width = [], options.line_width()
    for finding in _findings(online):
        found.append(finding)
        if not json:
            typer.echo(wrap(finding.line(), width, indent=" " * _INDENT))
    broken, warnings = (sum(one.level == level for one in found) for level in ("broken", "warning"))
    if json:
        options.print_json({"broken": broken, "warnings": warnings, "findings": [asdict(one) for one in found]})
    else:
        typer.echo(f"\n{broken} broken, {warnings} warnings")
    if broken:
        raise typer.Exit(1)


def _findings(online: bool) -> Iterator[Finding]:
    from qbench.doctor import assets, hardware, runs, software
    from qbench.doctor.finding import examine
    from qbench.tasks.assets import cache_folder

    results = options.results_folder()
    yield from examine("python", software.python)
    yield from examine("torch", software.torch)
    yield from examine("packages", software.packages)
    yield from examine("cores", hardware.cores_and_memory)
    yield from examine("arithmetic", hardware.arithmetic)
    yield from examine("cache", lambda: hardware.folder("cache", cache_folder(), "set QBENCH_CACHE to another folder"))
    yield from examine("results", lambda: hardware.folder("results", results.absolute(), "go to another folder"))
    yield from examine("assets", assets.assets)
    if online:
        yield from examine("network", assets.network)
    yield from examine("plugins", software.plugins)
    yield from examine("suites", runs.suites)
    yield from examine("runs", lambda: runs.runs(results / "runs"))

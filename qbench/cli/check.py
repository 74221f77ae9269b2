"""`qbench check`: whether quantizers and methods keep the contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbench.cli import options
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.conformance.contract import Report
    from qbench.conformance.subjects import Subject


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench check absmax   |   qbench check my_quantizers.py   |   "
        "qbench check mse --option p=2.4 --option granularity='{per_group: 64}'"
    )(check)


def check(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A quantizer's or a method's name, or a path to a .py file, all of whose names are checked; every "
            "registered name when left out."
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="quantizer or method, where both have the name.", show_default=False)
    ] = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", help="Load a .py file first; repeatable.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE, an option of what is checked; repeatable.", show_default=False),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Check that quantizers and methods keep the contract; ends with 1 where one does not, with 2 for a wrong call."""
    from qbench.conformance import subjects
    from qbench.registry import scope
    from qbench.suite.plugins import find_file

    given = read_options(option or [])
    with ExitStack() as known:
        files = [*(plugin or []), *([name] if name is not None and _is_file(name) else [])]
        names = [_loaded(known, file, find_file(Path(file), file), scope) for file in files]
        if name is None:
            asked = subjects.registered()
        elif _is_file(name):
            asked = subjects.brought(names[-1])
        else:
            asked = [subjects.named(name, kind)]
        if kind is not None:
            asked = [one for one in asked if one.kind == subjects.known_kind(kind)]
        if not asked:
            raise QBenchError(f"{name or 'the registry'}: no {kind or 'quantizer or method'} to check")
        if given and len(asked) > 1:
            raise QBenchError(f"--option is for one name, and {len(asked)} are to be checked")
        _show(_reports(asked, given), in_short=name is None, json=json)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or "/" in name or "\\" in name


def _loaded(known: ExitStack, file: str, plugin: Any, scope: Any) -> Any:
    from qbench.conformance.surroundings import settings_kept

    with settings_kept() as changed:
        plugin.load()
    if changed:
        seen = f"changes the {changed[0]} of the process when it is imported"
        raise QBenchError(f"{file} {seen} (allowed: to leave torch's global state as it was)")
    known.enter_context(scope(plugin.names))
    return plugin.names


def read_options(given: list[str]) -> dict[str, Any]:
    """Return the options in texts of the form ``KEY=VALUE``, whose values are YAML."""
    from qbench.suite.problems import shown
    from qbench.suite.source import read_value

    found = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise QBenchError(f"--option {shown(text)} is no option (allowed: KEY=VALUE, such as p=2.4)")
        try:
            found[key.strip()] = read_value(value)
        except QBenchError as error:
            no_yaml = "the value is no YAML (allowed: a number, a word, [a, list])"
            said = no_yaml if str(error).startswith("not valid YAML") else str(error)
            raise QBenchError(f"--option {shown(text)}: {said}") from None
    return found


def _reports(asked: list[Subject], given: dict[str, Any]) -> Iterator[Report]:
    for subject in asked:
        with redirect_stdout(sys.stderr):  # what a plugin prints must not get into a table or JSON
            report = subject.check(given) if len(asked) == 1 else subject.check_or_tell()
        yield report


def _show(reports: Iterator[Report], *, in_short: bool, json: bool) -> None:
    from qbench.conformance.text import render

    found: list[Report] = []
    for report in reports:
        if not json and not in_short and found:
            typer.echo("")
        found.append(report)
        if not json:
            typer.echo(report.verdict() if in_short else render(report))
    broken = [report for report in found if report.failed]
    if json:
        options.print_json({"conforms": not broken, "reports": [report.to_json() for report in found]})
    elif len(found) > 1:
        typer.echo(f"\n{len(found) - len(broken)} of {len(found)} conform")
    if broken:
        raise typer.Exit(1)

"""`qbench settings`: in what the settings of methods differ from a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from qbench.cli import options
from qbench.errors import QBenchError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qbench.spec import Spec
    from qbench.suite.published import OptionDifference

DEFAULTS = "defaults"


class _Preset(NamedTuple):
    source: str
    options: Mapping[str, Any] | None  # None: each method's own defaults
    method: str | None = None  # the only one that it is about
    absent: tuple[str, ...] = ()


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench settings   |   qbench settings --suite llm_lowbit --against gptq_code   |   "
        "qbench settings gptq --option act_order=false --against gptq_code"
    )(settings)


def settings(
    method: Annotated[
        str | None, typer.Argument(help="A method's name, in place of a suite.", show_default=False)
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="All methods of this suite.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE, an option of METHOD; repeatable.", show_default=False),
    ] = None,
    against: Annotated[
        str, typer.Option(help="defaults, one of the suite's presets, or published settings.")
    ] = DEFAULTS,
    json: options.JsonOption = False,
) -> None:
    """Show which options of methods differ from a preset; without a method or a suite, list the presets there are.

    Published presets hold what a paper or its code says; what it says and qbench has not is listed with it.
    """
    presets = _presets(suite)
    if method is None and suite is None:
        _list(presets, json=json)
        return
    if method is not None and suite is not None:
        raise QBenchError("settings of what? name a method or --suite, not both")
    if option and method is None:
        raise QBenchError("--option is for one method: name it")
    if against not in presets:
        raise UnknownNameError("preset", against, presets)
    preset = presets[against]
    specs = _of_suite(suite) if suite is not None else [_named(str(method), option or [])]
    about = [spec for spec in specs if preset.method in (None, spec.name)]
    if not about:
        raise QBenchError(
            f"{against} is about {preset.method}, and there is none here: {', '.join(s.name for s in specs)}"
        )
    rows = {spec.label(): _differences(spec, preset) for spec in about}
    if json:
        found = {
            label: {
                "differences": [
                    {**one._asdict(), "here": _plain(one.here), "preset": _plain(one.preset)} for one in diffs
                ],
                "not_options": unknown,
            }
            for label, (diffs, unknown) in rows.items()
        }
        said = {"against": against, "source": preset.source, "absent": list(preset.absent), "methods": found}
        options.print_json(said)
    else:
        _show(rows, against, preset)


def _presets(suite: str | None) -> dict[str, _Preset]:
    from qbench.suite.load import load_suite
    from qbench.suite.published import published

    found = {DEFAULTS: _Preset("each method's own defaults", None)}
    found |= {name: _Preset(one.source, one.options, one.method, one.absent) for name, one in published().items()}
    if suite is not None:
        loaded = load_suite(suite)
        found |= {name: _Preset(f"presets of {loaded.name}", given) for name, given in loaded.presets.items()}
    return found


def _of_suite(suite: str) -> list[Spec]:
    from qbench.suite.load import load_suite

    found = {spec.label(): spec for block in load_suite(suite).matrix for spec in block.methods}
    return list(found.values())


def _named(method: str, given: list[str]) -> Spec:
    from pydantic import ValidationError

    from qbench.cli.check import read_options
    from qbench.registry import METHODS
    from qbench.suite.entry import resolve_entry

    try:
        return resolve_entry({**read_options(given), "name": method}, METHODS, None)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"] if part != "name" and str(part) not in first["msg"])
        raise QBenchError(f"{place}{first['msg']}") from None


def _differences(spec: Spec, preset: _Preset) -> tuple[list[OptionDifference], list[str]]:
    """Return the options that differ, and the names in the preset that are none of this method's."""
    from qbench.suite.published import defaults_of, option_differences

    wanted = defaults_of(spec) if preset.options is None else preset.options
    return option_differences(spec, wanted), [name for name in wanted if name not in type(spec).model_fields]


def _list(presets: dict[str, _Preset], *, json: bool) -> None:
    from qbench.report.fitting import flow

    if json:
        found = {
            name: {"method": one.method, "source": one.source, "options": one.options} for name, one in presets.items()
        }
        options.print_json(found)
        return
    rows = [(name, one.method or "any", one.source) for name, one in presets.items()]
    typer.echo(flow(("preset", "method", "of"), rows, options.line_width()))


def _show(rows: dict[str, tuple[list[OptionDifference], list[str]]], against: str, preset: _Preset) -> None:
    from qbench.report.fitting import flow, wrap

    width = options.line_width()
    typer.echo(f"against {against}: {preset.source}")
    table = []
    for label, (found, unknown) in rows.items():
        for one in found:
            table.append((label, one.option, _word(one.here), _word(one.preset)))
        if unknown:
            table.append((label, f"has no {', '.join(unknown)}", "", ""))
        if not found and not unknown:
            table.append((label, "nothing differs", "", ""))
    typer.echo(flow(("method", "option", "here", against), table, width))
    if preset.absent:
        typer.echo("said there, and no option of the method here:")
        for text in preset.absent:
            typer.echo(wrap(f"  {text}", width))


def _plain(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)

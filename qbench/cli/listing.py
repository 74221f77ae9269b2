"""`qbench list`: what can be named in a suite."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from qbench.cli import options
from qbench.errors import QBenchError, UnknownNameError

if TYPE_CHECKING:
    from qbench.spec import Spec
    from qbench.tasks.zoo import ZooEntry

_KINDS = ("suites", "models", "quantizers", "methods", "probes", "assets")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        name="list",
        epilog="Examples:  qbench list   |   qbench list methods --json   |   qbench list quantizers --suite mine.yaml",
    )(list_names)


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="suites, models, quantizers, methods, probes or assets; all when left out.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="Also what the plugins of this suite bring.")
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """List suites, models, quantizers, methods, probes and assets, and where names come from that are not built in."""
    from qbench.registry import scope
    from qbench.report.fitting import flow
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
        headers = [name, "from", *(["measures", "data"] if name == "models" else []), ""]
        if name in ("suites", "assets"):
            told, headers = [(row[0], row[-1]) for row in told], [name, ""]
        if name == "models":
            told = [(one, origin, ", ".join(metrics), *rest) for one, origin, metrics, *rest in told]
        typer.echo(flow(headers, told, options.line_width()) + "\n")


class _Row(NamedTuple):
    origin: str
    about: str


class _Model(NamedTuple):
    origin: str
    metrics: tuple[str, ...]
    data: str
    about: str


def _about(kind: str) -> Mapping[str, _Row | _Model]:
    from qbench.registry import METHODS, PROBES, QUANTIZERS
    from qbench.suite.load import list_suites, load_suite
    from qbench.tasks import assets

    if kind == "suites":
        return {name: _Row("built in", _told(lambda name: load_suite(name).about, name)) for name in list_suites()}
    if kind == "assets":
        return {name: _Row("built in", f"{one.about} ({one.licence})") for name, one in assets.manifest().items()}
    if kind == "models":
        return _models()
    registry = {"quantizers": QUANTIZERS, "methods": METHODS, "probes": PROBES}[kind]

    def about(name: str) -> str:
        return _first_line(registry.get(name))

    return {name: _Row(registry.origin(name), _told(about, name)) for name in registry.names()}


def _models() -> dict[str, _Model]:
    from qbench.registry import MODELS
    from qbench.suite.metrics import measured_by
    from qbench.tasks import zoo

    found = {}
    for name in MODELS.names():
        origin = MODELS.origin(name)
        try:
            spec = MODELS.get(name)
        except QBenchError:
            found[name] = _Model(origin, (), "", _told(lambda name: _first_line(MODELS.get(name)), name))
            continue
        embedded = zoo.models().get(name)
        about = _first_line(spec) if embedded is None else embedded.about
        found[name] = _Model(origin, measured_by(spec), _data(spec, embedded), about)
    return found


def _data(spec: type[Spec], embedded: ZooEntry | None) -> str:
    if embedded is not None:
        images = getattr(embedded, "images", None)
        return "three_texts" if images is None else str(images.title())
    option = next((option for option in ("images", "text") if option in spec.model_fields), None)
    return "" if option is None else f"its option {option}"


def _first_line(spec: type[Spec]) -> str:
    return (inspect.getdoc(spec) or "").split("\n")[0]


def _told(about: Callable[[str], str], name: str) -> str:
    try:
        return about(name)
    except QBenchError as error:  # one broken plugin must not hide the others
        return f"cannot be used: {' '.join(str(error).split())}"

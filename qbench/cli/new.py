"""`qbench new`: a quantizer or a method of your own to start from."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path
from shlex import quote
from string import Template
from typing import Annotated

import typer

from qbench import atomic
from qbench.errors import QBenchError, UnknownNameError

_KINDS = ("quantizer", "method")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench new quantizer percentile_clip   |   qbench new method my_rounding --folder work"
    )(new)


def new(
    kind: Annotated[str, typer.Argument(help="quantizer or method.")],
    name: Annotated[str, typer.Argument(help="Its name in suites, and that of its file: small letters, digits and _.")],
    folder: Annotated[Path, typer.Option(help="Where the files go; it is made when it is not there.")] = Path(),
) -> None:
    """Write NAME.py, test_NAME.py and NAME_suite.yaml: a plugin that works as it is; nothing is overwritten."""
    if kind not in _KINDS:
        raise UnknownNameError("kind", kind, _KINDS)
    targets = {folder / f"{name}.py": kind, folder / f"test_{name}.py": f"{kind}_test"}
    targets[folder / f"{name}_suite.yaml"] = f"{kind}_suite"
    _check_name(kind, name)
    there = [str(path) for path in targets if path.exists() or path.is_symlink()]
    if there:
        raise QBenchError(f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already: nothing was written")
    words = {"name": name, "Class": _class_name(name)}
    texts = {path: Template(_template(template)).substitute(words) for path, template in targets.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        atomic.write_text(path, text)
    plugin, test, suite = (quote(str(path)) for path in targets)
    typer.echo(f"wrote {plugin}, {test} and {suite}; go on with\n")
    for command in (f"qbench check {plugin}", f"python -m pytest {test}", f"qbench run --suite {suite}"):
        typer.echo(f"  {command}")


def _check_name(kind: str, name: str) -> None:
    from qbench.registry import METHODS, QUANTIZERS

    registry = {"quantizer": QUANTIZERS, "method": METHODS}[kind]
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise QBenchError(
            f"{name!r} cannot name a {kind} and its file (allowed: small letters, digits and _, a letter first, and "
            "no word of Python)"
        )
    if name in registry.names():
        raise QBenchError(f"there is a {kind} {name!r} already ({registry.origin(name)}): choose another name")
    if name in sys.stdlib_module_names or PathFinder.find_spec(name, [path for path in sys.path if path]) is not None:
        raise QBenchError(f"{name}.py would hide the module {name!r} that Python has already: choose another name")


def _class_name(name: str) -> str:
    from qbench import plugin

    own = "".join(part.capitalize() for part in name.split("_"))
    # What the file imports is called as it is.
    taken = {*plugin.__all__, "Annotated", "ClassVar", "Field", "Tensor"}
    return own if own.isidentifier() and own not in taken else f"Own{own}"


def _template(name: str) -> str:
    return files("qbench").joinpath("cli", "templates", f"{name}.txt").read_text(encoding="utf-8")

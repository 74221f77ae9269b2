"""From a suite's name to a `Suite`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import qbench
from qbench import registry
from qbench.errors import QBenchError, SuiteError, UnknownNameError
from qbench.suite import plugins
from qbench.suite.limits import MAX_ENTRIES
from qbench.suite.problems import explain
from qbench.suite.schema import Suite
from qbench.suite.source import Source, YamlPath, read_source

_ENTRY_DEPTH = len(("matrix", 0, "methods", 0))


def list_suites() -> dict[str, Path]:
    """Return the shipped suites by name: those of the checkout, else those in the installed package."""
    package = Path(qbench.__file__).parent
    for folder in (package.parent / "suites", package / "_suites"):
        files = sorted(folder.glob("*.yaml"))
        if files:
            return {file.stem: file for file in files}
    return {}


def find_suite(name_or_path: str) -> Path:
    """Return the file of a suite.

    Parameters
    ----------
    name_or_path : str
        The name of a shipped suite; or a path, which ends in ``.yaml`` or ``.yml`` or holds a path separator.

    Raises
    ------
    UnknownNameError
        No shipped suite has that name.
    """
    separators = {"/", os.sep}
    if name_or_path.endswith((".yaml", ".yml")) or separators & set(name_or_path):
        return Path(name_or_path)
    suites = list_suites()
    if name_or_path not in suites:
        raise UnknownNameError("suite", name_or_path, suites)
    return suites[name_or_path]


def load_suite(name_or_path: str) -> Suite:
    """Read a suite, import its plugins, and resolve all of its entries.

    What its plugins register is known to this suite only.

    Raises
    ------
    UnknownNameError
        No shipped suite has that name.
    SuiteError
        The file is not a suite, or a plugin cannot be used; one line about the first thing that is wrong, with file,
        line and YAML path.
    """
    source = read_source(find_suite(name_or_path))
    loaded = _load_plugins(source)
    names = [name for plugin in loaded for name in plugin.names]
    try:
        with registry.scope(names):
            suite = Suite.model_validate(source.data, context=source)
    except ValidationError as error:
        raise _first_problem(source, explain(error, Suite)) from None
    suite.add_plugin_names(names)
    return suite


def _load_plugins(source: Source) -> list[plugins.Plugin]:
    given, loaded = source.data.get("plugins"), []
    names: list[registry.Registered] = []
    seen = set()
    # What is no list of texts, or too long a one, is told of with all else that is wrong in the file.
    for index, text in enumerate(given if isinstance(given, list) and len(given) <= MAX_ENTRIES else []):
        if isinstance(text, str) and text not in seen:
            seen.add(text)
            try:
                plugin = plugins.find(text, source.file.parent)
                plugin.load(names)
            except QBenchError as error:
                raise source.error(("plugins", index), str(error)) from None
            loaded.append(plugin)
            names += plugin.names
    return loaded


def _first_problem(source: Source, found: list[tuple[str, YamlPath]]) -> SuiteError:
    problems: dict[tuple[YamlPath, str | None], str] = {}
    for text, loc in found:
        path = _yaml_path(source, loc)
        place = source.trim(path)
        # pydantic goes on below a value, one error for each member of a union: the first speaks for the value.
        problems.setdefault((place, text if place == path else None), text)

    # A key that is missing is most often one that is misspelt: the misspelling says more.
    def order(key: tuple[YamlPath, str | None]) -> tuple[bool, int]:
        return problems[key].endswith(" is missing"), source.line(key[0])

    first, *others = sorted(problems, key=order)
    more = f" (and {len(others)} more)" if others else ""
    return source.error(first[0], problems[first] + more)


def _yaml_path(source: Source, loc: YamlPath) -> YamlPath:
    """Return the path in the file of what pydantic calls `loc`."""
    path = loc
    if path[:1] == ("matrix",) and not isinstance(source.data["matrix"], list):
        path = ("matrix", *path[2:])
    depth = _ENTRY_DEPTH - (len(loc) - len(path))
    entry, option = path[:depth], path[depth:]
    if option and (*entry, option[0]) not in source.lines and (*entry, "preset") in source.lines:
        in_preset = ("presets", _value(source, entry)["preset"], *option)
        if in_preset[:3] in source.lines:
            return in_preset
    return path


def _value(source: Source, path: YamlPath) -> Any:
    value: Any = source.data
    for key in path:
        value = value[key]
    return value

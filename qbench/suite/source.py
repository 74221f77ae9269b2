"""A YAML file as data, with the line every value stands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qbench.errors import SuiteError

YamlPath = tuple[str | int, ...]

_MAP = "tag:yaml.org,2002:map"
_SEQUENCE = "tag:yaml.org,2002:seq"
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Source:
    """What a YAML file says and where.

    Attributes
    ----------
    file : Path
        The file, as it was asked for.
    data : dict
        The top mapping; keys of all mappings are strings.
    lines : dict of tuple to int
        One-based line of each value, by its path from the top; a mapping's value has the line of its key.
    """

    file: Path
    data: dict[str, Any]
    lines: dict[YamlPath, int]

    def line(self, path: YamlPath) -> int:
        """Return the line of a path, or of what is nearest above it in the file."""
        return self.lines[self.trim(path)]

    def trim(self, path: YamlPath) -> YamlPath:
        """Return the longest beginning of a path that stands in the file."""
        while path not in self.lines:
            path = path[:-1]
        return path

    def error(self, path: YamlPath, message: str) -> SuiteError:
        """Return an error that names file, line and YAML path."""
        found = self.trim(path)
        place = f"`{show_path(found)}`: " if found else ""
        return SuiteError(place + message, file=self.file, line=self.lines[found])


def show_path(path: YamlPath) -> str:
    """Return a YAML path as text.

    Examples
    --------
    >>> show_path(("matrix", 0, "methods", 2, "steps"))
    'matrix[0].methods[2].steps'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def read_source(file: Path) -> Source:
    """Read a YAML file whose top is a mapping.

    Raises
    ------
    SuiteError
        The file cannot be read, is not UTF-8, is not YAML, holds no mapping, gives a key twice, or uses aliases, merge
        keys or tags.
    """
    text = _read_text(file)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise SuiteError("the file is empty (allowed: a mapping)", file=file)
            lines: dict[YamlPath, int] = {}
            data = _construct(loader, node, (), lines)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: character #x{error.character:04x} is not allowed"
        raise SuiteError(message, file=file, line=line) from None
    except _RefusedError as error:
        raise SuiteError(str(error), file=file, line=error.line) from None
    except yaml.MarkedYAMLError as error:
        raise SuiteError(f"not valid YAML: {_problem(error)}", file=file, line=_mark_line(error)) from None
    except RecursionError:
        raise SuiteError("not readable: values are nested too deeply", file=file) from None
    if not isinstance(data, dict):
        raise SuiteError(f"the top is {data!r:.60} (allowed: a mapping)", file=file, line=lines[()])
    return Source(file, data, lines)


class _RefusedError(Exception):
    """Something that YAML allows and a suite does not."""

    def __init__(self, message: str, node_or_event: yaml.Node | yaml.Event) -> None:
        mark = node_or_event.start_mark
        self.line = None if mark is None else mark.line + 1
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # An alias has two places in the file, and a few of them can expand to more than memory holds.
        if self.check_event(yaml.AliasEvent):
            event: yaml.AliasEvent = self.peek_event()  # type: ignore[no-untyped-call]
            raise _RefusedError(f"the alias *{event.anchor} is not read (allowed: `presets`)", event)
        return super().compose_node(parent, index)


def _construct(loader: _Loader, node: yaml.Node, path: YamlPath, lines: dict[YamlPath, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        _check_tag(node, _MAP)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _construct_key(loader, key_node)
            if key in mapping:
                raise _RefusedError(f"the key {key!r} is given twice, first on line {lines[*path, key]}", key_node)
            lines[*path, key] = key_node.start_mark.line + 1
            mapping[key] = _construct(loader, value_node, (*path, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        _check_tag(node, _SEQUENCE)
        return [_construct(loader, item, (*path, index), lines) for index, item in enumerate(node.value)]
    return _construct_scalar(loader, node)


def _construct_key(loader: _Loader, node: yaml.Node) -> str:
    if node.tag == _MERGE:
        raise _RefusedError("the merge key << is not read (allowed: `presets`)", node)
    if not isinstance(node, yaml.ScalarNode):
        raise _RefusedError("a key is a list or a mapping (allowed: text)", node)
    key = _construct_scalar(loader, node)
    if not isinstance(key, str):
        raise _RefusedError(f"the key {node.value} is not text (allowed: text; put it in quotes)", node)
    return key


def _construct_scalar(loader: _Loader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:
        raise _RefusedError(f"{node.value!r:.60} cannot be read: {error}", node) from None


def _check_tag(node: yaml.Node, expected: str) -> None:
    if node.tag != expected:
        raise _RefusedError(f"the tag {node.tag!r} is not read (allowed: none)", node)


def _problem(error: yaml.MarkedYAMLError) -> str:
    start = "" if error.context_mark is None else f" that starts on line {error.context_mark.line + 1}"
    context = "" if error.context is None else f"{error.context}{start}: "
    return " ".join(f"{context}{error.problem}".split())


def _mark_line(error: yaml.MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return None if mark is None else mark.line + 1


def _read_text(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise SuiteError("no such file", file=file) from None
    except IsADirectoryError:
        raise SuiteError("is a directory (allowed: a YAML file)", file=file) from None
    except OSError as error:
        raise SuiteError(f"cannot be read: {error.strerror}", file=file) from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise SuiteError(message, file=file, line=line) from None

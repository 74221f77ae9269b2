"""A YAML file as data, with the line every value stands on."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qbench.errors import QBenchError, SuiteError
from qbench.suite.limits import MAX_BYTES, MAX_DEPTH, MAX_KEY, MAX_NUMBER, MAX_TEXT, MAX_VALUES

YamlPath = tuple[str | int, ...]

_LONGEST = 380
_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Half of a surrogate pair, control characters, and marks that show text in another order than it has: none can be
# printed as it is. Lines and tabs can.
_UNPRINTABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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
        return SuiteError(place + _in_a_line(message), file=self.file, line=self.lines[found])


def show_path(path: YamlPath) -> str:
    """Return a YAML path as text; the middle of a long one is left out.

    Examples
    --------
    >>> show_path(("matrix", 0, "methods", 2, "steps"))
    'matrix[0].methods[2].steps'
    """
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{_as_key(key)}" for key in path).removeprefix(".")
    return text if len(text) <= 100 else f"{text[:50]}...{text[-47:]}"


def _in_a_line(text: str) -> str:
    # A plugin's own check may say anything. The end of a long text is what is allowed.
    text = text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
    return text if len(text) <= _LONGEST else f"{text[:200]}...{text[203 - _LONGEST :]}"


def _as_key(key: str) -> str:
    return key if key.isprintable() else repr(key)


def read_source(file: Path) -> Source:
    """Read a YAML file whose top is a mapping.

    Raises
    ------
    SuiteError
        The file cannot be read, is not UTF-8, is not YAML, holds no mapping, gives a key twice, uses aliases, merge
        keys or tags, or is larger, deeper or longer in a text than `qbench.suite.limits` allows.
    """
    text = _read_text(file)
    lines: dict[YamlPath, int] = {}
    try:
        data = _read(text, lines)
    except _RefusedError as error:
        raise SuiteError(str(error), file=file, line=error.line) from None
    if not isinstance(data, dict):
        raise SuiteError(f"the top is {data!r:.60} (allowed: a mapping)", file=file, line=lines.get(()))
    return Source(file, data, lines)


def read_value(text: str) -> Any:
    """Return the value that YAML text of a command line means, by the rules of suite files.

    Raises
    ------
    QBenchError
        The text is no such value; the message says why, but not what was given.
    """
    if len(text) > MAX_TEXT:
        raise QBenchError(f"{len(text)} characters (allowed: at most {MAX_TEXT})")
    try:
        return _read(text, {}) if text.strip() else None
    except _RefusedError as error:
        raise QBenchError(str(error)) from None


def _read(text: str, lines: dict[YamlPath, int]) -> Any:
    """Return what YAML text says, or raise `_RefusedError`; `lines` is filled."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise _RefusedError("the file is empty (allowed: a mapping)")
            return _construct(loader, node, (), lines)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _RefusedError(f"not valid YAML: character #x{error.character:04x} is not allowed", line=line) from None
    except yaml.MarkedYAMLError as error:
        raise _RefusedError(f"not valid YAML: {_problem(error)}", line=_mark_line(error)) from None
    except RecursionError:  # where the caller is deep already
        raise _RefusedError("not readable: values are nested too deeply") from None


class _RefusedError(Exception):
    """Something that YAML allows and a suite does not, or that is no YAML."""

    def __init__(self, message: str, at: yaml.Node | yaml.Event | None = None, line: int | None = None) -> None:
        mark = None if at is None else at.start_mark
        self.line = line if mark is None else mark.line + 1
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    values = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # An alias has two places in the file, and a few of them can expand to more than memory holds.
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _RefusedError(f"the alias *{event.anchor:.60} is not read (allowed: `presets`)", event)
        if (tag := getattr(event, "tag", None)) is not None:
            raise _RefusedError(f"the tag {tag!r:.60} is not read (allowed: none)", event)
        self.values += 1
        if self.values > MAX_VALUES:
            raise _RefusedError(f"more than {MAX_VALUES} keys and values (allowed: at most {MAX_VALUES})", event)
        if self.depth >= MAX_DEPTH:
            raise _RefusedError(f"values are nested more than {MAX_DEPTH} deep (allowed: at most {MAX_DEPTH})", event)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _construct(loader: _Loader, node: yaml.Node, path: YamlPath, lines: dict[YamlPath, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _construct_key(loader, key_node)
            if key in mapping:
                raise _RefusedError(f"the key {key!r} is given twice, first on line {lines[*path, key]}", key_node)
            lines[*path, key] = key_node.start_mark.line + 1
            mapping[key] = _construct(loader, value_node, (*path, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, index), lines) for index, item in enumerate(node.value)]
    return _construct_scalar(loader, node)


def _construct_key(loader: _Loader, node: yaml.Node) -> str:
    if node.tag == _MERGE:
        raise _RefusedError("the merge key << is not read (allowed: `presets`)", node)
    if not isinstance(node, yaml.ScalarNode):
        raise _RefusedError("a key is a list or a mapping (allowed: text)", node)
    key = _construct_scalar(loader, node)
    if not isinstance(key, str):
        raise _RefusedError(f"the key {node.value:.60} is not text (allowed: text; put it in quotes)", node)
    if len(key) > MAX_KEY:
        raise _RefusedError(f"a key of {len(key)} characters (allowed: at most {MAX_KEY})", node)
    return key


def _construct_scalar(loader: _Loader, node: yaml.Node) -> Any:
    text: str = node.value
    is_number = node.tag in _NUMBERS
    if len(text) > (most := MAX_NUMBER if is_number else MAX_TEXT):
        what = "number" if is_number else "text"
        raise _RefusedError(f"a {what} of {len(text)} characters (allowed: at most {most})", node)
    if wrong := _UNPRINTABLE.search(text):
        raise _RefusedError(f"a text holds the character U+{ord(wrong[0]):04X}, which cannot be shown", node)
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, OverflowError) as error:
        raise _RefusedError(f"{text!r:.60} cannot be read: {error}", node) from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    start = "" if error.context_mark is None else f" that starts on line {error.context_mark.line + 1}"
    context = "" if error.context is None else f"{error.context}{start}: "
    said = " ".join(f"{context}{error.problem}".split())
    return said if len(said) <= 200 else f"{said[:197]}..."


def _mark_line(error: yaml.MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return None if mark is None else mark.line + 1


def _read_text(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SuiteError("is a directory (allowed: a YAML file)", file=file)
        if not stat.S_ISREG(mode):  # a pipe or a device may have no end
            raise SuiteError("is no regular file (allowed: a YAML file)", file=file)
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SuiteError("no such file", file=file) from None
    except OSError as error:
        raise SuiteError(f"cannot be read: {error.strerror}", file=file) from None
    except ValueError as error:  # a name that no file can have
        raise SuiteError(f"{str(file)!r:.60} cannot be read: {error}") from None
    if len(raw) > MAX_BYTES:
        raise SuiteError(f"is larger than {MAX_BYTES} bytes (allowed: at most so many)", file=file)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise SuiteError(message, file=file, line=line) from None

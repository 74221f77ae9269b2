"""Plugins that a suite names: a file or a package folder beside it, or an installed package.

A file ``clip.py`` becomes the module ``qbench_plugins.p<hash>.clip``, with a hash of its place and its text, and of the
files beside it that it imports. So files of one name never meet in a process, the same file is imported once, and a
changed file is another module. The package
``qbench_plugins.p<hash>`` has the file's folder as its path: ``from .ranges import ...`` finds ``ranges.py`` there, and
`importlib.util.find_spec` finds them all.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from qbench import registry
from qbench.errors import QBenchError
from qbench.interrupt import noted
from qbench.registry import LOCAL, Registered, scope
from qbench.suite.limits import MAX_KEY
from qbench.suite.paths import resolve_inside
from qbench.suite.problems import shown

_ALLOWED = "a .py file or a package folder in the suite's folder, or the dotted name of an installed package"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MOST = 300

_names: dict[str, tuple[Registered, ...]] = {}


@dataclass(frozen=True)
class Plugin:
    """A plugin, loaded or not; small enough to be handed to worker processes.

    Attributes
    ----------
    given : str
        What it is called in messages: as the suite gives it.
    module : str
        The name of its module.
    path : Path or None
        The file or the package folder; None for an installed package.
    """

    given: str
    module: str
    path: Path | None

    @property
    def names(self) -> tuple[Registered, ...]:
        """What it registered; nothing before it is loaded."""
        return _names.get(self.module, ())

    def load(self, known: Iterable[Registered] = ()) -> None:
        """Import it, unless that is done, and remember what it registers.

        Parameters
        ----------
        known : iterable of Registered
            What the plugins before it brought.

        Raises
        ------
        QBenchError
            It cannot be imported, has changed since it was found, registers nothing, or takes a name that is taken.
        """
        known = tuple(known)
        if self.module not in _names:
            with scope(known) as added:
                self._import()
                found = added() if self.path else tuple(dict.fromkeys((*added(), *_registered_from(self.module))))
            for one in found:
                _require_importable(one, self.given)
            if not found:
                raise QBenchError(
                    f"{self.given} registers nothing "
                    "(allowed: @register_quantizer or @register_method of qbench.plugin, on a class)"
                )
            _names[self.module] = found
        with scope((*known, *self.names)):
            pass  # a module is imported once, and may meet other names every time

    def _import(self) -> None:
        if self.path is not None:
            if (now := find_file(self.path, self.given)).module != self.module:
                raise QBenchError(f"{self.given} has changed since it was read: run again")
            parent = ModuleType(self.module.rpartition(".")[0])
            parent.__path__ = [str(now.path.parent)] if now.path else []
            sys.modules.setdefault(LOCAL, ModuleType(LOCAL)).__path__ = []
            sys.modules[parent.__name__] = parent
        importlib.invalidate_caches()  # the file may be younger than the last look at its folder
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is left in the suite's folder
        with noted() as interrupted:
            try:
                with redirect_stdout(sys.stderr):  # what it prints must not get into a table or JSON
                    importlib.import_module(self.module)
            except BaseException as error:  # it can fail in any way, sys.exit among them
                self._forget()
                if isinstance(error, KeyboardInterrupt) and interrupted():
                    raise
                raise QBenchError(self._problem(error)) from error
            finally:
                sys.dont_write_bytecode = before

    def _forget(self) -> None:
        root = self.module if self.path is None else self.module.rpartition(".")[0]
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{root}.")]:
            del sys.modules[name]

    def _problem(self, error: BaseException) -> str:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if self.path is None and missing and f"{self.module}.".startswith(f"{missing}."):
            return f"{self.given} is neither in the suite's folder nor installed (allowed: {_ALLOWED})"
        said = " ".join(str(error).split())
        said = said if len(said) <= _MOST else f"{said[: _MOST - 3]}..."
        if isinstance(error, SyntaxError) and error.filename:
            said = " ".join(str(error.msg).split())
            place: tuple[str, int | None] | None = (error.filename, error.lineno)
        else:
            place = self._last_line(error)
        where = self.given
        if place is not None:
            file = Path(place[0]).name
            where += f", line {place[1]}" if file == Path(self.given).name else f", {file} line {place[1]}"
        if missing and self.path and (self.path.parent / f"{missing}.py").is_file():
            said += f" (a file beside a plugin is imported as `from .{missing} import ...`)"
        kind = "" if isinstance(error, QBenchError) else f"{type(error).__name__}: "
        return f"{where}: {kind}{said}".removesuffix(": ")

    def _last_line(self, error: BaseException) -> tuple[str, int | None] | None:
        """Return the innermost line of the plugin's own on the way to an error."""
        if self.path is not None:
            root = self.path if self.path.is_dir() else self.path.parent
        else:
            spec = importlib.util.find_spec(self.module.partition(".")[0])
            if spec is None or spec.origin is None:
                return None
            root = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        return next(((file, line) for file, line in reversed(lines) if Path(file).is_relative_to(root)), None)


def _require_importable(one: Registered, given: str) -> None:
    """Raise `QBenchError` where a worker process could not find a class by its name."""
    place: object = sys.modules.get(one.target.__module__)
    for part in one.target.__qualname__.split("."):
        place = getattr(place, part, None)
    if place is not one.target:
        raise QBenchError(
            f"{given}: {one.kind} {one.name!r} is the class {one.target.__qualname__}, which its module does not have "
            "under that name (allowed: a class at the top of the file, with a name of its own)"
        )


def find(given: str, folder: Path) -> Plugin:
    """Return what a suite means by a plugin, without importing it.

    Parameters
    ----------
    given : str
        A path inside the suite's folder, or a dotted name. A folder beside the suite comes before an installed package
        of its name.
    folder : Path
        The suite's.

    Raises
    ------
    QBenchError
        The path leaves the folder or leads to nothing, or the text is neither.
    """
    if given.endswith(".py") or {"/", "\\"} & set(given) or _is_folder(folder / given):
        short = given if len(given) <= MAX_KEY and given.isprintable() else shown(given)
        return find_file(resolve_inside(folder, given), short)
    if len(given) > MAX_KEY or not _DOTTED.fullmatch(given):
        raise QBenchError(f"{shown(given)} is no plugin (allowed: {_ALLOWED})")
    if given.partition(".")[0] in sys.stdlib_module_names:
        raise QBenchError(f"{given} is a module of Python itself (allowed: {_ALLOWED})")
    return Plugin(given, given, None)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def find_file(path: Path, given: str | None = None) -> Plugin:
    """Return the plugin in a file or a package folder, without importing it.

    Parameters
    ----------
    path : Path
        A .py file, or a folder with an ``__init__.py``.
    given : str, optional
        What it is called in messages; the file's name when left out.

    Raises
    ------
    QBenchError
        Nothing of that kind is there, or its name is not one that a module can have.
    """
    path, given = path.resolve(), given or path.name
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise QBenchError(f"{given} is a folder without an __init__.py (allowed: {_ALLOWED})")
    if not path.is_dir() and (path.suffix != ".py" or not path.is_file()):
        raise QBenchError(f"{given} is {'no .py file' if path.exists() else 'not there'} (allowed: {_ALLOWED})")
    if not path.stem.isidentifier():
        raise QBenchError(f"{given} cannot be imported by its name (allowed: letters, digits and _)")
    try:
        texts = tree_sha256(path)
    except OSError as error:
        raise QBenchError(f"{given} cannot be read: {error.strerror}") from None
    key = hashlib.sha256(f"{path}\0{texts}".encode()).hexdigest()[:16]
    return Plugin(given, f"{LOCAL}.p{key}.{path.stem}", path)


def tree_sha256(path: Path) -> str:
    """Return the sha256 of the names and texts of all files of a plugin, see `files_of`; of a lone file its own."""
    files = files_of(path)
    if list(files.values()) == [path]:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    listed = [f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for name, file in sorted(files.items())]
    return hashlib.sha256("".join(listed).encode()).hexdigest()


def files_of(path: Path) -> dict[str, Path]:
    """Return the Python files that a plugin consists of, by their names below its folder.

    Parameters
    ----------
    path : Path
        A package folder: all files in it. A file: itself, and whatever lies beside it that it imports by a relative
        import anywhere in its text, and what that imports in turn.
    """
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file for file in path.rglob("*.py")}
    found, waiting = {}, [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(path.parent).as_posix()
        if name not in found:
            found[name] = file
            waiting += _imported_beside(file, path.parent)
    return found


def _imported_beside(file: Path, folder: Path) -> list[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # said when it is imported
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            first = node.module.partition(".")[0] if node.module else None
            for name in [first] if first else [alias.name for alias in node.names]:
                found += [folder / f"{name}.py"] if (folder / f"{name}.py").is_file() else []
                found += sorted((folder / str(name)).rglob("*.py"))
    return found


def loaded_for(modules: Iterable[str]) -> tuple[Plugin, ...]:
    """Return the local plugins that modules belong to, for a process that is to have them as well."""
    # A module beside a plugin's file has the same parent, and comes with the plugin.
    parents = {".".join(module.split(".")[:2]) for module in modules if module.startswith(f"{LOCAL}.")}
    found = []
    for module in sorted(module for module in _names if module.rpartition(".")[0] in parents):
        file = sys.modules[module].__file__
        assert file is not None
        path = Path(file).parent if Path(file).name == "__init__.py" else Path(file)
        found.append(Plugin(path.name, module, path))
    return tuple(found)


def public_name(module: str) -> str:
    """Return what a module is called in a cell's key: without the place of a local plugin."""
    return f"plugins/{'.'.join(module.split('.')[2:])}" if module.startswith(f"{LOCAL}.") else module


def file_name(module: str) -> str:
    """Return the file that a local plugin's module is in, such as ``clip.py``; other modules' names as they are."""
    return f"{'/'.join(module.split('.')[2:])}.py" if module.startswith(f"{LOCAL}.") else module


def _registered_from(package: str) -> Sequence[Registered]:
    """Return the names that an installed package brings, however they came to be known."""
    found = []
    for known in (registry.MODELS, registry.QUANTIZERS, registry.METHODS, registry.PROBES):
        for name in known.names():
            home = known.home(name)
            if f"{home}.".startswith(f"{package}."):
                found.append(Registered(known.kind, name, known.get(name)))
    return found

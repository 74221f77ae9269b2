"""Which code a cell's numbers can come from: source hashes, and what a module imports, found without importing it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

from qbench import atomic
from qbench.errors import QBenchError

CANNOT_CHANGE_NUMBERS = {
    "qbench": "holds the version, which stands in the record's environment",
    "qbench.atomic": "writes and hashes bytes as they are",
    "qbench.errors": "holds the words of messages",
    "qbench.plugin": "hands on names of modules that every cell with a grid has in its key",
    "qbench.registry": "leads from a name to a class, whose source counts",
    "qbench.tasks.evaluation_fence": "refuses, and changes nothing",
    "qbench.runner.checkpoints": "keeps a training's state as it is, and refuses that of another ground",
    "qbench.runner.cpu": "says what the machine's CPU is called",
    "qbench.runner.identity": "makes the key",
    "qbench.runner.machine": "measures the machine; what it sets is hashed as qbench.runner.machine:settle",
    "qbench.runner.memory": "refuses, and changes nothing",
    "qbench.runner.sources": "makes the key",
    "qbench.runner.streamed_memory": "tells how much memory a cell should take",
    "qbench.runner.worker": "prepares processes, and carries cells and records",
    "qbench.store.record": "is the layout of what was measured",
    "qbench.suite.cell": "holds what the key is made of",
    "qbench.suite.plugins": "finds and hashes plugins",
    "qbench.tasks.assets": "finds files whose bytes are pinned by hash",
    "qbench.tasks.image_zoo": "says what a model is, which is in its fingerprint",
    "qbench.tasks.model_config": "refuses, and changes nothing",
    "qbench.tasks.torchvision_names": "says which names there are",
    "qbench.tasks.wikitext": "makes a corpus that is pinned by hash",
    "qbench.tasks.zoo": "says what a model is, which is in its fingerprint",
}
"""Modules that a cell may go through without having them in its key, and why; what they import counts as little."""


@cache
def source_sha256(source: str) -> str:
    """Return the sha256 of a module's source file, or of one definition in it, without importing it.

    Parameters
    ----------
    source : str
        ``package.module``, or ``package.module:name`` for a function or class at the top of the module.

    Raises
    ------
    QBenchError
        There is no such module, it has no source file, or nothing of that name is defined in it.
    """
    module, _, name = source.partition(":")
    path = file_of(module)
    if path is None:
        raise QBenchError(f"module {module!r} is named as a source but has no file")
    if not name:
        return atomic.sha256_file(path)
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return hashlib.sha256((ast.get_source_segment(text, node) or "").encode()).hexdigest()
    raise QBenchError(f"{source!r} is named as a source, and {module} defines no {name}")


def file_of(module: str) -> Path | None:
    """Return a module's source file; None where there is no such module, or none with a file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a package above it is missing, or is a plain module
        return None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return Path(spec.origin)


def closure(modules: Iterable[str], passed_over: Collection[str] = CANNOT_CHANGE_NUMBERS) -> set[str]:
    """Return modules and all that they import, at the top or inside a function, directly or by another.

    Parameters
    ----------
    modules : iterable of str
        Where to begin; definitions (``module:name``) count as nothing.
    passed_over : collection of str
        Modules that are neither taken nor gone through.

    Returns
    -------
    set of str
        Modules of qbench, and of the packages that `modules` belong to. What is imported for type checking alone, by
        a computed name, or from elsewhere is not among them.
    """
    waiting = [module for module in modules if ":" not in module]
    packages = frozenset({"qbench"} | {module.partition(".")[0] for module in waiting})
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in found and module not in passed_over:
            found.add(module)
            waiting += imports_of(module, packages)
    return found


@cache
def imports_of(module: str, packages: frozenset[str]) -> tuple[str, ...]:
    """Return the modules of some packages that a module imports itself, and the packages they are in; sorted."""
    path = file_of(module)
    if path is None or path.suffix != ".py":
        return ()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # said when it is imported
        return ()
    parent = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in _met_at_run_time(tree):
        for name in _named(node, parent):
            if name.partition(".")[0] in packages:
                found |= {name} if file_of(name) is not None else {name.rpartition(".")[0]} - {""}
    return tuple(sorted(name for name in found if file_of(name) is not None))


def _met_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield other
                yield from _met_at_run_time(other)
            continue
        yield child
        yield from _met_at_run_time(child)


def _named(node: ast.AST, parent: str) -> list[str]:
    """Return what an import may mean: modules, or names in modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        above = parent.split(".")[: len(parent.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    # A star brings what the module itself has.
    return [base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names]

"""Nothing that qbench reads can run code: no pickle, no allowed pickle in an array file, no code in a string.

`test_architecture.test_nothing_unsafe` refuses the modules and calls that every linter knows; here are the ways around.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qbench

PACKAGE = Path(qbench.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Cells, and nothing else, go from a run to the worker processes that it has started itself, and to no file: specs of
# plugins have no other form that brings their class along. A record comes back as the JSON that is stored.
BETWEEN_OWN_PROCESSES = {f"runner/{name}.py": {"ForkingPickler"} for name in ("rank", "worker")}

FORBIDDEN_MODULES = {
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "pickletools",
    "shelve",
}
FORBIDDEN_NAMES = {
    "allow_pickle",
    "eval",
    "exec",
    "from_pickle",
    "loads_pickle",
    "read_pickle",
    "runcode",
    "to_pickle",
    "unsafe_load",
    "full_load",
    "UnsafeLoader",
    "FullLoader",
    "Unpickler",
    "Pickler",
    "ForkingPickler",
    "_Unpickler",
}


def names_in(tree: ast.AST) -> set[str]:
    """Return every name, attribute, keyword and word of a string constant that stands alone."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} - {"eval", "exec"}  # `model.eval()` sets a mode; the builtins are plain names
        elif isinstance(node, ast.keyword) and node.arg is not None:
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found |= {*node.name.split("."), node.asname or ""}
        elif isinstance(node, ast.ImportFrom):
            found |= set((node.module or "").split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if node.value.isidentifier() else set()  # import_module("pickle"), getattr(x, "eval")
    return found


def unsafe_in(source: str) -> set[str]:
    """Return what a source has of what is forbidden."""
    tree = ast.parse(source)
    wrong = names_in(tree) & (FORBIDDEN_NAMES | FORBIDDEN_MODULES)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
        if called == "torch.load" and given.get("weights_only") != "True":
            wrong.add("torch.load")
        if called == "yaml.load" or called.endswith("yaml.load_all"):
            wrong.add(called)
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_source_unpickles_or_evaluates(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    assert unsafe_in(path.read_text(encoding="utf-8")) == BETWEEN_OWN_PROCESSES.get(place, set())


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 150
    assert {place for place in BETWEEN_OWN_PROCESSES if not (PACKAGE / place).exists()} == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib as j",
        "from pickle import loads",
        "from pandas import read_pickle",
        "importlib.import_module('pickle')",
        "__import__('marshal')",
        "eval(text)",
        "builtins_exec = exec",
        "numpy.load(file, allow_pickle=True)",
        "numpy.load(file, allow_pickle=chosen)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "yaml.load_all(text)",
        "from yaml import FullLoader",
        "from multiprocessing.reduction import ForkingPickler",
        "getattr(builtins, 'exec')",
    ],
)
def test_what_is_unsafe_is_seen(source: str) -> None:
    assert unsafe_in(source)


@pytest.mark.parametrize("source", ["model.eval()", "torch.load(file, weights_only=True)", "yaml.safe_load(text)"])
def test_what_is_safe_is_let_through(source: str) -> None:
    assert not unsafe_in(source)

"""Docstrings of everything public: there, and in step with the code.

The rules: what is public has a docstring (a method that fills in one of its base class may leave it to the base). With
four parameters or more there is a Parameters section. A Parameters section names the parameters of the signature,
all of them and in order. An Attributes section names every public field that its class adds.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import qbench

PACKAGE = Path(qbench.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
CLASSES = {node.name: node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
SECTION_FROM = 4

each_file = pytest.mark.parametrize("path", TREES, ids=lambda path: str(path.relative_to(PACKAGE)))


def public(body: list[ast.stmt], kind: type | object) -> Iterator[ast.stmt]:
    return (node for node in body if isinstance(node, kind) and not node.name.startswith("_"))


def documented_by_base(owner: ast.ClassDef, method: str) -> bool:
    for base in owner.bases:
        parent = CLASSES.get(ast.unparse(base).rpartition(".")[2])
        if parent is None:
            continue
        own = [node for node in parent.body if isinstance(node, FUNCTION) and node.name == method]
        if any(ast.get_docstring(node) for node in own) or documented_by_base(parent, method):
            return True
    return False


def named_in(section: str, docstring: str | None) -> list[str] | None:
    """Return the names that a section of a NumPy docstring explains, or None when it has no such section."""
    match = re.search(rf"^{section}\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", inspect.cleandoc(docstring or ""), re.M | re.S)
    if match is None:
        return None
    heads = re.findall(r"^(\*{0,2}\w[^\n:]*?)(?: :|$)", match.group(1), re.M)
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    ordered = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [one.arg for one in ordered if one is not None and one.arg not in {"self", "cls"}]


def fields(owner: ast.ClassDef) -> list[str]:
    annotated = [node for node in owner.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    # A class variable is a setting that the base class explains.
    names = [node.target.id for node in annotated if "ClassVar" not in ast.unparse(node.annotation)]
    return [name for name in names if not name.startswith("_")]


def check_function(function: ast.FunctionDef, where: str, inherits: bool = False) -> Iterator[str]:
    docstring, given = ast.get_docstring(function), parameters(function)
    if docstring is None:
        if not inherits:
            yield f"{where} has no docstring"
        return
    named = named_in("Parameters", docstring)
    # A verb's options carry their help where they are declared, and its docstring is what `--help` prints.
    is_verb = any("options." in ast.unparse(one.annotation) for one in function.args.args if one.annotation)
    if named is None and len(given) >= SECTION_FROM and not is_verb:
        yield f"{where} has {len(given)} parameters and no Parameters section"
    if named is not None and named != given:
        yield f"{where} takes {given}, its docstring explains {named}"


def check_class(owner: ast.ClassDef, where: str) -> Iterator[str]:
    docstring = ast.get_docstring(owner)
    if docstring is None:
        yield f"{where} has no docstring"
    attributes, given = named_in("Attributes", docstring), named_in("Parameters", docstring)
    missing = [name for name in fields(owner) if attributes is not None and name not in attributes]
    if missing:
        yield f"{where} does not explain {missing} among its Attributes"
    init = next((node for node in owner.body if isinstance(node, FUNCTION) and node.name == "__init__"), None)
    if init is not None and given is not None and given != parameters(init):
        yield f"{where} takes {parameters(init)}, its docstring explains {given}"
    for method in public(owner.body, FUNCTION):
        inherits = documented_by_base(owner, method.name)
        yield from check_function(method, f"{where}.{method.name} (line {method.lineno})", inherits)


@each_file
def test_docstrings(path: Path) -> None:
    tree, wrong = TREES[path], []
    if tree.body and ast.get_docstring(tree) is None:
        wrong.append("the module has no docstring")
    for function in public(tree.body, FUNCTION):
        wrong += check_function(function, f"{function.name} (line {function.lineno})")
    for owner in public(tree.body, ast.ClassDef):
        wrong += check_class(owner, owner.name)
    assert not wrong, "\n".join([str(path), *wrong])

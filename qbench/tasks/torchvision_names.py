"""The names of torchvision's classifiers, read from its source: importing it brings torch, and takes seconds."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path


@cache
def classifier_names() -> frozenset[str]:
    """Return what ``torchvision.models.list_models(module=torchvision.models)`` returns.

    They are the functions that its modules of ``torchvision/models`` register; those in folders below are models of
    other tasks.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return frozenset()
    names: set[str] = set()
    for file in sorted((Path(found.origin).parent / "models").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(_registers(one) for one in node.decorator_list):
                names.add(node.name)
    return frozenset(names)


def _registers(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "register_model"
    )

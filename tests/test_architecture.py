"""The shape of the code: imports run one way, what is known stays free of torch, files stay small."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import qbench
from qbench.registry import METHODS, MODELS, PROBES, QUANTIZERS

PACKAGE = Path(qbench.__file__).parent
MODULES = {
    ".".join(("qbench", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# A room is a package of qbench, or a module beside the packages. Each lists the rooms it may import besides itself.
GROUND = {"", "errors", "atomic", "seeds", "interrupt"}
KNOWN = GROUND | {"spec", "registry", "suite", "store"}
ROOMS = {
    "": set(),
    "errors": set(),
    "atomic": GROUND,
    "seeds": GROUND,
    "interrupt": set(),
    # What is known: no torch.
    "spec": GROUND,
    "registry": GROUND | {"spec"},
    "suite": GROUND | {"spec", "registry"},
    "store": GROUND | {"spec", "registry", "suite"},
    "claims": KNOWN,
    "diagnosis": KNOWN | {"claims"},
    "report": KNOWN | {"claims", "diagnosis"},
    # What is computed.
    "quant": GROUND,
    "quantizers": GROUND | {"spec", "quant"},
    "methods": GROUND | {"spec", "quant", "quantizers"},
    "tasks": GROUND | {"spec"},
    "geometry": GROUND | {"spec", "quant", "quantizers", "methods", "tasks"},
    # What strangers import, of both.
    "plugin": GROUND | {"spec", "registry", "quant", "quantizers", "methods"},
    "runner": KNOWN | {"quant", "quantizers", "methods", "tasks", "geometry"},
    "conformance": GROUND | {"spec", "registry", "suite", "quant", "quantizers", "methods", "tasks"},
    "testing": {"errors", "quantizers", "methods", "conformance"},
    # Where both meet.
    "reference": GROUND | {"spec", "registry", "suite", "tasks"},
    "doctor": KNOWN | {"runner", "tasks"},
    "cli": KNOWN | {"doctor", "plugin", "report", "claims", "diagnosis", "runner", "tasks", "conformance", "reference"},
}
TORCH_FREE_ROOMS = KNOWN | {"claims", "diagnosis", "report", "plugin", "reference", "cli"}
HEAVY = {"torch", "torchvision", "transformers", "datasets", "lm_eval", "safetensors.torch"}

MOST_LINES = 350
NOT_A_NOUN = {"util", "utils", "helper", "helpers", "common", "misc"}

each_module = pytest.mark.parametrize("module", MODULES)


def room_of(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports_in(nodes: Iterator[ast.AST], module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of everything that import statements among the nodes bring in."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below that run when the module is imported: no function bodies, nothing for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


def modules_behind(name: str) -> set[str]:
    """Return the modules of qbench that importing a dotted name loads: the module and the packages it lies in."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)} & MODULES.keys()


@cache
def way_to_torch(module: str) -> tuple[str, ...] | None:
    """Return how importing a module ends at torch or a library on it: a chain of names; None when it does not."""
    queue, seen = [(loaded,) for loaded in sorted(modules_behind(module))], modules_behind(module)
    while queue:
        chain = queue.pop(0)
        for _, name in imports_in(run_at_import(tree_of(chain[-1])), chain[-1]):
            if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY):
                return (*chain, name)
            new = sorted(modules_behind(name) - seen)
            seen.update(new)
            queue += [(*chain, loaded) for loaded in new]
    return None


def test_every_room_has_its_rule() -> None:
    unknown = {room_of(module) for module in MODULES} - ROOMS.keys()
    assert not unknown, f"say in ROOMS what {sorted(unknown)} may import"


@each_module
def test_imports_run_one_way(module: str) -> None:
    room = room_of(module)
    allowed = ROOMS.get(room, set()) | {room}
    wrong = [
        f"{MODULES[module]}:{line} imports {name}"
        for line, name in imports_in(ast.walk(tree_of(module)), module)
        if name.partition(".")[0] == "qbench" and room_of(max(modules_behind(name), key=len)) not in allowed
    ]
    assert not wrong, f"{room or 'qbench'} may import {sorted(filter(None, allowed))}: {wrong}"


@each_module
def test_what_is_known_is_free_of_torch(module: str) -> None:
    if room_of(module) in TORCH_FREE_ROOMS:
        assert way_to_torch(module) is None


@pytest.mark.parametrize("registry", [QUANTIZERS, METHODS, PROBES, MODELS], ids=lambda registry: registry.kind)
def test_specs_are_free_of_torch(registry: object) -> None:
    for name in registry.names():
        module = registry.get(name).__module__
        if module in MODULES:
            assert way_to_torch(module) is None, f"{registry.kind} {name!r}: import torch inside its functions"


@each_module
def test_files_are_small_and_named_by_a_noun(module: str) -> None:
    path = MODULES[module]
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{path} has {lines} lines"
    assert path.stem not in NOT_A_NOUN, f"{path}: a function lives in the room that owns its noun"


@each_module
def test_nothing_unsafe(module: str) -> None:
    wrong = []
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in {"print", "eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
                wrong.append((node.lineno, called))
            if called == "torch.load" and given.get("weights_only") != "True":
                wrong.append((node.lineno, "torch.load without weights_only=True"))
            if given.get("trust_remote_code", "False") != "False":
                wrong.append((node.lineno, "trust_remote_code"))
    wrong += [
        (line, name)
        for line, name in imports_in(ast.walk(tree_of(module)), module)
        if name.partition(".")[0] in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    ]
    assert not wrong, f"{MODULES[module]}: {wrong}"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["validate", "llm_lowbit"]], ids=" ".join)
def test_light_verbs_start_without_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from qbench.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "assert not code, code\n"
        f"loaded = sorted({HEAVY!r} & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    # Warnings are left to the program: this is about what it loads.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr or done.stdout

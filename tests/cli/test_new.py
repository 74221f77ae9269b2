"""`qbench new`: files that work as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from qbench import registry
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite

RUFF = Path(sys.executable).with_name("ruff")

both = pytest.mark.parametrize(("kind", "name"), [("quantizer", "share_clip"), ("method", "keep_rows")])


@both
def test_three_files_and_three_commands(call: Any, own_folder: Path, kind: str, name: str) -> None:
    said = call("new", kind, name)
    assert (said.code, said.err) == (0, "")
    assert sorted(path.name for path in own_folder.iterdir()) == sorted(
        [f"{name}.py", f"test_{name}.py", f"{name}_suite.yaml"]
    )
    assert said.out.splitlines() == [
        f"wrote {name}.py, test_{name}.py and {name}_suite.yaml; go on with",
        "",
        f"  qbench check {name}.py",
        f"  python -m pytest test_{name}.py",
        f"  qbench run --suite {name}_suite.yaml",
    ]


@both
def test_the_suite_runs_it_beside_ours(call: Any, kind: str, name: str) -> None:
    call("new", kind, name, "--folder", "work/deep")
    suite = load_suite(f"work/deep/{name}_suite.yaml")
    (found,) = suite.plugin_names
    assert (found.kind, found.name) == (kind, name)
    assert suite.about.startswith(name)
    block = suite.matrix[0]
    assert block.bits == (4, 3, 2)
    assert {"absmax", "mse"} <= {one.name for one in block.quantizers}
    assert {"rtn", "gptq"} <= {one.name for one in block.methods}
    assert name in {one.name for one in (*block.quantizers, *block.methods)}
    assert {cell.model.name for cell in enumerate_cells(suite)} == {"llama-1m"}
    assert call("validate", f"work/deep/{name}_suite.yaml").code == 0


@pytest.mark.slow
@both
def test_the_files_pass_as_they_are(call: Any, own_folder: Path, kind: str, name: str) -> None:
    call("new", kind, name)
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{name}.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@both
@pytest.mark.skipif(not RUFF.exists(), reason="ruff is not installed")
def test_the_files_are_formatted(call: Any, own_folder: Path, kind: str, name: str) -> None:
    call("new", kind, name)
    rules = "E,F,W,I,UP,B,N,RUF"
    for arguments in (["format", "--check"], ["check", "--select", rules]):
        done = subprocess.run([RUFF, *arguments, "--isolated", "."], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(call: Any, own_folder: Path) -> None:
    (own_folder / "test_mine.py").write_text("precious")
    said = call("new", "quantizer", "mine")
    assert said.code == 2
    assert said.err == "qbench: test_mine.py is there already: nothing was written\n"
    assert [path.name for path in own_folder.iterdir()] == ["test_mine.py"]
    (own_folder / "test_mine.py").unlink()
    assert call("new", "quantizer", "mine").code == 0
    said = call("new", "quantizer", "mine")
    assert said.err == "qbench: mine.py, test_mine.py, mine_suite.yaml are there already: nothing was written\n"


WORDS = "(allowed: small letters, digits and _, a letter first, and no word of Python)"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("quantizer", "Mine", f"'Mine' cannot name a quantizer and its file {WORDS}"),
        ("quantizer", "my-own", f"'my-own' cannot name a quantizer and its file {WORDS}"),
        ("method", "_mine", f"'_mine' cannot name a method and its file {WORDS}"),
        ("method", "4bits", f"'4bits' cannot name a method and its file {WORDS}"),
        ("method", "class", f"'class' cannot name a method and its file {WORDS}"),
        ("method", "../mine", f"'../mine' cannot name a method and its file {WORDS}"),
        ("method", "grün", f"'grün' cannot name a method and its file {WORDS}"),
        ("quantizer", "absmax", "there is a quantizer 'absmax' already (built in): choose another name"),
        ("method", "gptq", "there is a method 'gptq' already (built in): choose another name"),
        ("method", "random", "random.py would hide the module 'random' that Python has already: choose another name"),
        ("method", "torch", "torch.py would hide the module 'torch' that Python has already: choose another name"),
        ("methd", "mine", "unknown kind 'methd': did you mean 'method'? (allowed: method, quantizer)"),
    ],
)
def test_a_name_that_cannot_be(call: Any, own_folder: Path, kind: str, name: str, message: str) -> None:
    said = call("new", kind, name)
    assert (said.code, said.err) == (2, f"qbench: {message}\n")
    assert list(own_folder.iterdir()) == []


@pytest.mark.parametrize("name", ["quantizer", "tensor", "field", "integer_quantizer", "levels", "q_4"])
def test_a_class_is_called_like_nothing_it_needs(call: Any, name: str) -> None:
    assert call("new", "quantizer", name).code == 0
    suite = load_suite(f"{name}_suite.yaml")
    with registry.scope(suite.plugin_names):
        assert registry.QUANTIZERS.get(name)(name=name).label() == f"{name}[per_channel]"


def test_the_templates_are_in_the_package() -> None:
    folder = files("qbench").joinpath("cli", "templates")
    names = sorted(one.name for one in folder.iterdir())
    assert names == sorted(f"{kind}{part}.txt" for kind in ("method", "quantizer") for part in ("", "_suite", "_test"))

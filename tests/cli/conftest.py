"""The command line in this process, in a folder of its own, and one stored run of the embedded model."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from qbench import registry
from qbench.cli import main

TINY = """\
name: tiny
about: The smallest model, two methods, little data
presets:
  short: {steps: 2, batch_size: 2}
matrix:
  models:
    - {name: llama-1m, evaluation_windows: 8, calibration_windows: 8, passages: 2, choices: 4}
  quantizers: [absmax]
  bits: [4, 2]
  methods: [rtn, {name: ste_qat, preset: short}]
  seeds: 1
exclude:
  - when: {bits: 4, methods: ste_qat}
    reason: nothing to recover at 4 bits
metrics: [loss, bits_per_byte, next_sentence]
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs `qbench` with arguments."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["qbench", *map(str, arguments)])
        capsys.readouterr()
        code = main()
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep results out of the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Return a folder in which the suite `tiny` was run by the installed command, and what that said."""
    folder = tmp_path_factory.mktemp("first_run")
    (folder / "tiny.yaml").write_text(TINY)
    qbench = Path(sys.executable).with_name("qbench")
    command = [qbench, "run", "--suite", "tiny.yaml", "--jobs", "1", "--device", "cpu"]
    # Threads that spin while they wait take long where other work is done at the same time.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return folder, Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def stored(first_run: tuple[Path, Said], own_folder: Path) -> Path:
    """Return this test's own copy of that folder, which is also the present one."""
    shutil.copytree(first_run[0], own_folder, dirs_exist_ok=True)
    return own_folder


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Make the toys of tests/runner known to suites, here and in worker processes."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "runner")
    for known in (registry.MODELS, registry.METHODS):
        monkeypatch.setattr(known, "_references", dict(known._references))
    module = importlib.import_module("toys")
    module.install()
    yield module

"""Runs in processes of their own, in a folder of their own, and what a run folder must be at any instant.

README.md lists the faults and where each is tested.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from safetensors.torch import load

from qbench import registry
from qbench.cli import main
from qbench.store.schema import parse_record

RUNNER = Path(__file__).parents[1] / "runner"
# Nothing here takes so long but on a machine with other work.
PATIENCE = 280

DRIVER = """
import sys
import toys
from qbench.cli import main
if __name__ == "__main__":
    toys.install()
    sys.exit(main())
"""
SUITE = """
name: waiting
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [8, 4, 3, 2]
  methods: [rtn, {name: waits, seconds: 0.3}]
  seeds: 1
metrics: [loss]
"""

Start = Callable[..., "subprocess.Popen[str]"]


class Folders:
    """What is asked of run folders, by means that are not qbench's own where that is possible."""

    patience = PATIENCE

    @staticmethod
    def count(folder: Path) -> int:
        return len(list((folder / "records").glob("[!.]*.json")))

    @staticmethod
    def unsound(folder: Path) -> list[str]:
        """Return what is wrong with the files of a folder; a kill at any instant must leave nothing."""
        wrong = []
        for path in sorted((folder / "records").glob("[!.]*")):
            record = parse_record(path.read_text(encoding="utf-8"))
            weights = folder / "weights" / f"{path.stem}.safetensors"
            if record.cell_id != path.stem:
                wrong.append(f"{path.name} is of {record.cell_id}")
            if record.weights_sha256 is not None:
                found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "missing"
                if found != record.weights_sha256:
                    wrong.append(f"{weights.name} is {found}")
        for path in sorted((folder / "weights").glob("[!.]*")):
            load(path.read_bytes())
        return wrong

    @staticmethod
    def results(folder: Path) -> dict[str, Any]:
        """Return all that must be the same byte for byte however often a run was broken off."""
        found: dict[str, Any] = {}
        for path in sorted((folder / "records").glob("[!.]*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            kept = ("status", "reason", "metrics", "documents", "layers", "traces", "effective_bits", "weights_sha256")
            found[path.name] = json.dumps([data[name] for name in kept])
        for path in sorted((folder / "weights").glob("[!.]*")):
            found[path.name] = path.read_bytes()
        return found

    @staticmethod
    def wait_until(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    @classmethod
    def wait_for_all(cls, processes: Sequence[psutil.Process]) -> None:
        cls.wait_until(
            lambda: not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        )


@pytest.fixture(scope="session")
def folders() -> type[Folders]:
    return Folders


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts `qbench` with the toys known; what it started is gone after the test."""
    (tmp_path / "waiting.yaml").write_text(SUITE)
    (tmp_path / "driver.py").write_text(DRIVER)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, before: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        command = [*before, sys.executable, str(tmp_path / "driver.py"), *map(str, arguments)]
        driver = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(RUNNER), *filter(None, sys.path)])},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        started.append(driver)
        return driver

    yield start
    for driver in started:
        with driver:
            driver.kill()


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Make the toys of tests/runner known to suites, here and in worker processes."""
    monkeypatch.syspath_prepend(RUNNER)
    for known in (registry.MODELS, registry.METHODS):
        monkeypatch.setattr(known, "_references", dict(known._references))
    module = importlib.import_module("toys")
    module.install()
    yield module


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `qbench` in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qbench", *map(str, arguments)])
        capsys.readouterr()
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that shows a line past the capture: what was tried, for who reads the log of a nightly run."""

    def tell(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return tell

"""Machines with one thing broken: it is named, with what to type, and all else is still looked at."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qbench.doctor import assets, hardware, runs, software
from qbench.doctor.finding import Finding, examine, some
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite import load


def levels(found: Iterable[Finding]) -> list[str]:
    return [one.level for one in found]


def run_doctor(*arguments: str, folder: Path, **environment: str) -> tuple[int, Any, str]:
    command = [Path(sys.executable).with_name("qbench"), "doctor", "--json", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def broken(found: Any) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in found["findings"] if one["level"] == "broken"}


@pytest.mark.slow
def test_a_machine_with_everything_broken(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "sad_plugin-1.0.dist-info").mkdir(parents=True)
    (site / "sad_plugin-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sad-plugin\nVersion: 1.0\n"
    )
    (site / "sad_plugin-1.0.dist-info" / "entry_points.txt").write_text("[qbench.methods]\nsad = sad_plugin:Sad\n")
    (site / "sad_plugin.py").write_text("import no_such_module\n")
    (site / "torch.py").write_text("raise ImportError('libcudart.so: cannot open shared object file')\n")
    (tmp_path / "file").touch()
    code, found, said = run_doctor(folder=tmp_path, PYTHONPATH=str(site), QBENCH_CACHE=str(tmp_path / "file" / "cache"))
    assert (code, said) == (1, "")
    wrong = broken(found)
    assert set(wrong) == {"torch", "cache", "plugins"}
    assert found["broken"] == 3
    assert "libcudart.so: cannot open shared object file" in wrong["torch"]["said"]
    assert wrong["cache"]["said"] == f"{tmp_path}/file/cache: {tmp_path}/file is no folder"
    assert wrong["plugins"]["said"].startswith("method 'sad' cannot be loaded from sad_plugin:Sad: ModuleNotFoundError")
    assert wrong["plugins"]["cure"] == "mend it, or pip uninstall sad-plugin"
    assert all(one["cure"] for one in found["findings"] if one["level"] != "ok")
    assert not list((tmp_path).glob("results"))


def test_the_lines_and_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from qbench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["qbench", "doctor"])
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    # What differs between machines is looked at by the tests below.
    monkeypatch.setattr(software, "packages", lambda: [])
    assert main() == 0
    *lines, empty, summary = capsys.readouterr().out.splitlines()
    assert empty == "" and summary.startswith("0 broken, ")
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    names = {line.split()[1] for line in lines}
    assert names >= {
        "python",
        "torch",
        "GPU",
        "cores",
        "memory",
        "cache",
        "results",
        "assets",
        "plugins",
        "suites",
        "runs",
    }
    (line,) = [line for line in lines if "ATEN_CPU_CAPABILITY" in line]
    assert line.startswith("warning  arithmetic") and line.endswith(" -> unset ATEN_CPU_CAPABILITY")
    assert any(line.startswith("warning  assets") and line.endswith(" -> qbench fetch") for line in lines)
    assert not list(tmp_path.iterdir())  # nothing was made


def test_an_examination_that_fails_is_a_finding() -> None:
    def fail() -> Iterator[Finding]:
        yield Finding("ok", "x", "one")
        raise RuntimeError("no\nluck")

    assert list(examine("x", fail)) == [
        Finding("ok", "x", "one"),
        Finding("broken", "x", "cannot be looked at: RuntimeError: no luck"),
    ]


def test_a_list_in_a_line() -> None:
    assert (some("ab"), some("abcdef"), some([])) == ("a, b", "a, b, c, d and 2 more", "")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise ImportError('no luck')", "does not work: ImportError: no luck"),
        ("import os\nos.kill(os.getpid(), 11)", "does not work: its process ended with -11"),
        ("import sys\nsys.exit(0)", "does not work: it says nothing that can be read"),
    ],
)
def test_a_torch_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str) -> None:
    (tmp_path / "torch.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = software.torch()
    assert found == Finding("broken", "torch", said, "pip install --force-reinstall torch")


def test_versions_that_differ(tmp_path: Path) -> None:
    from importlib.metadata import version

    constraints = tmp_path / "constraints.txt"
    constraints.write_text(f"# pinned\nnumpy==0.1\nnot-there==1.0\npydantic=={version('pydantic')}+cpu ; x\n")
    (found,) = software.packages(constraints)
    said = f"1 differ from constraints.txt: numpy {version('numpy')} (not 0.1)"
    assert found == Finding("warning", "packages", said, "pip install -c constraints.txt -e .")
    constraints.write_text(f"numpy=={version('numpy')}\nnot-there==1.0\n")
    assert list(software.packages(constraints)) == [Finding("ok", "packages", "1 are those of constraints.txt")]
    (found,) = software.packages(tmp_path / "none.txt")
    assert found.level == "ok" and found.said.startswith("no checkout")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        software, "requires", lambda _: ["numpy>=2", "no-such-package[x]>=1 ; python_version>'3'", 'y; extra == "dev"']
    )
    first = next(software.packages(tmp_path / "none.txt"))
    assert first == Finding("broken", "packages", "no-such-package: not installed", "pip install no-such-package")


@pytest.mark.parametrize(
    ("bound", "satisfied"), [(">=3.11", True), ("<3.11", False), ("<4", True), (">=99", False), ("<= 3.99", True)]
)
def test_bounds_of_python(bound: str, satisfied: bool) -> None:
    assert software._satisfies(bound) is satisfied


def test_this_python_and_its_plugins_are_sound() -> None:
    assert levels(software.python()) == ["ok"]
    assert levels(software.plugins()) == ["ok"]


def test_assets_that_are_missing_or_not_what_was_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qbench.tasks.assets import asset_path

    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    path = asset_path("shakespeare")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"to be")
    found = {one.level: one for one in assets.assets()}
    assert found["broken"].said.startswith(f"asset 'shakespeare': {path} has sha256 ")
    assert found["broken"].cure == "qbench fetch shakespeare"
    assert "enwiki_2016, bible_kjv" in found["warning"].said and found["warning"].cure == "qbench fetch"


def test_no_network_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("refused")

    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    found = list(assets.network())
    assert found and set(levels(found)) == {"warning"}
    assert found[0].said.startswith("the package index: ERROR: ")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import shutil
    import tempfile

    def examined(path: Path) -> Finding:
        (found,) = hardware.folder("cache", path, "choose another")
        return found

    assert examined(tmp_path).level == "ok"
    assert examined(tmp_path / "a" / "b").said.startswith(f"{tmp_path}/a/b (not made yet): ")
    assert not (tmp_path / "a").exists()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert examined(tmp_path / "link" / "a").level == "broken"
    usage = shutil._ntuple_diskusage  # type: ignore[attr-defined]
    for free, level in ((1 << 30, "warning"), (1 << 20, "broken")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(1 << 40, 0, free))
        found = examined(tmp_path)
        assert (found.level, found.cure) == (level, "make room there, or choose another")

    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert examined(tmp_path).said == f"{tmp_path}: nothing can be written (Read-only file system)"


def test_variables_that_change_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*hardware.CHANGES_ARITHMETIC, "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert set(levels(hardware.arithmetic())) == {"ok"}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert set(levels(hardware.arithmetic())) == {"ok"}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found = [one for one in hardware.arithmetic() if one.level == "warning"]
    assert [one.cure for one in found] == ["unset MKL_CBWR", "unset CUBLAS_WORKSPACE_CONFIG"]


def test_suites_that_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sad.yaml").write_text("name: sad\nmatrix: 1\n")
    sound = load.list_suites()["smoke"]
    monkeypatch.setattr(load, "list_suites", lambda: {"sad": tmp_path / "sad.yaml", "smoke": sound})
    assert list(runs.suites()) == [
        Finding(
            "broken", "suites", f"{tmp_path}/sad.yaml:2: `matrix`: given 1 (allowed: a mapping)", "qbench validate sad"
        ),
        Finding("ok", "suites", "smoke: sound"),
    ]
    monkeypatch.setattr(load, "list_suites", dict)
    assert levels(runs.suites()) == ["broken"]


def record(cell_id: str, quantizer: str | None) -> Record:
    axes = {"model": "m", "quantizer": quantizer, "bits": quantizer and 4, "method": "rtn", "seed": 0}
    return Record(cell_id=cell_id, key={}, axes=axes, suite="s", status="ok", weights_sha256=quantizer and "0" * 64)


def test_runs_with_something_wrong(tmp_path: Path) -> None:
    assert list(runs.runs(tmp_path / "none")) == [Finding("ok", "runs", f"none in {tmp_path}/none")]
    RunFolder(tmp_path / "good").write(record("a", None))
    RunFolder(tmp_path / "good" / "repeats" / "1").write(record("a", None))
    assert list(runs.runs(tmp_path)) == [Finding("ok", "runs", f"{tmp_path}/good: 1 records")]

    bad = RunFolder(tmp_path / "bad" / "repeats" / "2")
    bad.write(record("a", "grid"))
    bad.write(record("d", "other"))
    bad.weights_path("d").parent.mkdir()
    bad.weights_path("d").write_bytes(b"not what has the hash 000...")
    RunFolder(tmp_path / "bad").write(record("a", None))
    bad.record_path("b").write_text("{")
    (bad.path / "records" / ".c.json.x.tmp").touch()
    found = [one for one in runs.runs(tmp_path) if one.level != "ok"]
    assert [one.said.removeprefix(f"{bad.path}: ")[:40] for one in found] == [
        "1 files are no records, such as b.json (",
        "1 half-written files of a run that was k",
        "no weights of m/grid/4b/rtn/s0",
        "the weights of m/other/4b/rtn/s0 are not",
    ]
    assert all(one.level == "warning" and one.cure.startswith("qbench repeat --suite bad ") for one in found)
    with bad.lock():
        held = [one for one in runs.runs(tmp_path) if one.level != "ok"]
    assert len(held) == 1 and held[0].said.startswith(f"{bad.path} is in use by process {os.getpid()} ")


def test_weights_with_the_hash_of_their_record_are_sound(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "good")
    folder.weights_path("").parent.mkdir(parents=True)
    folder.weights_path("a").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    folder.write(record("a", "grid").model_copy(update={"weights_sha256": sha256}))
    assert levels(runs.runs(tmp_path)) == ["ok"]
    folder.weights_path("a").write_bytes(b"weight")
    (found,) = runs.runs(tmp_path)
    said = f"{folder.path}: the weights of m/grid/4b/rtn/s0 are not those that the records tell of"
    assert found == Finding("warning", "runs", said, "qbench run --suite good makes them again")


def test_records_of_a_shipped_suite_that_are_none_of_its_cells_today_are_counted(tmp_path: Path) -> None:
    today = sorted(runs.cells_today("smoke") or ())
    folder = RunFolder(tmp_path / "smoke")
    folder.write(record(today[0], None))
    assert list(runs.runs(tmp_path)) == [Finding("ok", "runs", f"{folder.path}: 1 records")]
    folder.write(record("0" * 64, "grid"))  # without its weights, which no run would make again
    said = f"{folder.path}: 2 records, 1 of them of older code, data or options: they are left aside"
    assert list(runs.runs(tmp_path)) == [Finding("ok", "runs", said)]
    assert runs.cells_today("mine") is None


def test_checkpoints_of_cells_that_a_suite_has_no_more_are_told(tmp_path: Path) -> None:
    today = sorted(runs.cells_today("smoke") or ())
    folder = RunFolder(tmp_path / "smoke")
    folder.write(record(today[0], None))
    folder.checkpoint_path("").parent.mkdir()
    folder.checkpoint_path(today[1]).write_bytes(b"of a training that will go on")
    assert levels(runs.runs(tmp_path)) == ["ok"]
    folder.checkpoint_path("0" * 64).write_bytes(bytes(2_500_000))
    (found,) = runs.runs(tmp_path)
    said = f"{folder.path}: 1 checkpoints of cells that the suite has no more (000000000000..; 2.5 MB)"
    assert found == Finding("warning", "runs", said, f"remove them from {folder.path}/checkpoints")
    (folder.path / "checkpoints" / ".x.safetensors.y.tmp").touch()
    assert "half-written" in [one.said for one in runs.runs(tmp_path)][1]


def test_looking_changes_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "good").write(record("a", None))
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    list(runs.runs(tmp_path))
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before

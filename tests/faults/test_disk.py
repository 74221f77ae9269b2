"""A disk that is full or cannot be written: one line, nothing half written, no cell blamed; the run goes on later."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[str]"]
Call = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.timeout(900)

GO_ON = "stopped; what has ended is kept, and the same command goes on from there"
RUN = ("run", "--suite", "waiting.yaml", "--device", "cpu", "--jobs", "2", "--out", "out")

# What is on such a disk is gone with the process that mounted it, so all is done and copied in there.
ON_A_SMALL_DISK = """
mkdir -p out && mount -t tmpfs -o size=$1 small out || exit 97
shift
"$@"; first=$?
cp -r out full
mount -o remount,size=16m out || exit 98
"$@"; second=$?
cp -r out whole
exit $((first * 10 + second))
"""
ON_A_READ_ONLY_DISK = """
mkdir -p out && mount -t tmpfs -o size=1m,ro readonly out || exit 97
shift
"$@"
"""


@cache
def private_mounts() -> list[str]:
    """Return what gives a command mounts of its own, empty where this system does not let us."""
    for way in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        try:
            tried = subprocess.run(
                [*way, "mount", "-t", "tmpfs", "probe", "/mnt"], capture_output=True, check=False, timeout=60
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return way
    return []


def mounted(script: str, size: str) -> list[str]:
    if not private_mounts():
        pytest.skip("this system lets us mount nothing; the limit on file sizes and the injected errors are tested")
    return [*private_mounts(), "sh", "-c", script, "sh", size]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(start: Start, folders: Any, tmp_path: Path) -> None:
    driver = start(*RUN, before=mounted(ON_A_SMALL_DISK, "64k"))
    _, said = driver.communicate(timeout=folders.patience)
    assert driver.returncode == 20, said  # 2, then 0
    lines = [line for line in said.splitlines() if not line.endswith((" left", ", estimating"))]
    plan, stop, again, last = lines
    assert plan.startswith("waiting: 9 cells to run, 0 from the records in out")
    assert re.fullmatch(rf"qbench: cannot write out/\S+: No space left on device \(make room there\): {GO_ON}", stop), (
        stop
    )
    kept = folders.count(tmp_path / "full")
    assert 0 < kept < 9
    assert again.startswith(f"waiting: {9 - kept} cells to run, {kept} from the records in out")
    assert last.startswith(f"{9 - kept} of {9 - kept} cells, ")
    assert folders.unsound(tmp_path / "full") == []
    before, after = folders.results(tmp_path / "full"), folders.results(tmp_path / "whole")
    assert before.items() <= after.items() and len(after) == 17
    assert not list((tmp_path / "whole").rglob("*.tmp"))
    assert {record.split(",")[0] for name, record in after.items() if name.endswith(".json")} == {'["ok"'}


@pytest.mark.skipif(sys.platform == "win32", reason="limits")
def test_a_limit_on_the_size_of_files_does_the_same(start: Start, folders: Any, tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))

    driver = start(
        *RUN,
        preexec_fn=limit,
    )
    _, said = driver.communicate(timeout=folders.patience)
    assert driver.returncode == 2, said
    _, stop = said.splitlines()
    assert re.fullmatch(rf"qbench: cannot write out/\S+: File too large \(allow larger files there\): {GO_ON}", stop), (
        stop
    )
    assert folders.unsound(tmp_path / "out") == []
    assert folders.count(tmp_path / "out") == 0
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
def test_a_read_only_disk_is_told_of_before_anything_is_computed(start: Start, folders: Any) -> None:
    driver = start(*RUN, before=mounted(ON_A_READ_ONLY_DISK, "-"))
    _, said = driver.communicate(timeout=folders.patience)
    cure = "write somewhere else, or make it writable"
    assert said in (f"qbench: cannot write out{place}: Read-only file system ({cure})\n" for place in ("", "/.lock"))
    assert driver.returncode == 2


@pytest.fixture
def prepared(toys: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what has been fetched or computed."""
    from qbench.runner import local

    seen: list[str] = []
    monkeypatch.setattr(toys.Toy, "prepare", lambda self: seen.append("prepare"))
    monkeypatch.setattr(local, "WorkerProcess", lambda *_: seen.append("process"))
    (Path("waiting.yaml")).write_text(
        "name: waiting\nmatrix:\n  models: [toy]\n  quantizers: [absmax]\n  bits: [4]\n  methods: [rtn]\n  seeds: 1\n"
        "metrics: [loss]\n"
    )
    return seen


@pytest.mark.parametrize("place", ["out", "out/records", "out/weights"])
def test_a_file_in_the_way_is_told_of_before_anything_is_computed(call: Call, prepared: list[str], place: str) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_text("mine")
    code, out, err = call(*RUN)
    assert (code, out, prepared) == (2, "", [])
    said = "File exists (a file is where a folder should be: move it away)"
    assert err == f"qbench: cannot write {place}: {said}\n"
    assert Path(place).read_text() == "mine"


def test_a_repeat_says_the_same(call: Call, prepared: list[str]) -> None:
    Path("out").mkdir()
    Path("out/repeats").write_text("mine")
    code, out, err = call("repeat", *RUN[1:])
    assert (code, out, prepared) == (2, "", [])
    assert err.startswith("qbench: cannot write out/repeats/1: ") and len(err.splitlines()) == 1
    assert err.endswith("(a file is where a folder should be: move it away)\n")

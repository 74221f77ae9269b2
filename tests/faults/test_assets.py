"""Assets that are not there or not whole, as the command line meets them; tests/tasks has every other way they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.tasks import assets

Start = Callable[..., "subprocess.Popen[str]"]
Call = Callable[..., tuple[int, str, str]]

NAME = "shakespeare"
pytestmark = pytest.mark.timeout(900)


@cache
def private_network() -> list[str]:
    """Return what gives a command a network without any way out, empty where this system does not let us."""
    for way in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            if subprocess.run([*way, "true"], capture_output=True, check=False, timeout=60).returncode == 0:
                return way
        except OSError:
            pass
    return []


@pytest.mark.slow
@pytest.mark.parametrize("verb", [("fetch", NAME), ("run", "--suite", "smoke", "--out", "out")])
def test_without_a_network_an_empty_cache_is_told_of_in_one_line(
    start: Start, folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path / "cache"))
    # Where the system gives no network of its own, every way out leads to a port at which nobody listens.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    driver = start(*verb, before=private_network())
    out, said = driver.communicate(timeout=folders.patience)
    assert (driver.returncode, out) == (2, ""), said
    assert len(said.splitlines()) == 1
    assert said.startswith("qbench: asset ") and "is not in the cache" in said
    assert "with a network" in said
    assert not list((tmp_path / "cache").rglob("*.*")), "something half fetched is left"
    assert folders.count(tmp_path / "out") == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "changed"])
def test_an_asset_that_is_not_the_pinned_one_stops_a_run_before_it_begins(
    toys: ModuleType, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole = assets.require(NAME).read_bytes()
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path / "cache"))
    path = assets.asset_path(NAME)
    path.parent.mkdir(parents=True)
    path.write_bytes({"truncated": whole[:-1], "empty": b"", "changed": whole[:-1] + bytes([whole[-1] ^ 1])}[damage])
    monkeypatch.setattr(toys.Toy, "prepare", lambda self: assets.fetch(NAME))
    Path("toy.yaml").write_text(
        "name: toy\nmatrix:\n  models: [toy]\n  quantizers: [absmax]\n  bits: [4]\n  methods: [rtn]\n  seeds: 1\n"
        "metrics: [loss]\n"
    )
    code, out, err = call("run", "--suite", "toy.yaml", "--device", "cpu")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith(f"qbench: asset '{NAME}': {path} has sha256 ")
    assert err.endswith(f": remove it and run `qbench fetch {NAME}`\n")
    assert not list(Path("results").rglob("*.json"))

"""`qbench run --executor ray`: what is refused before anything is started; clusters are in tests/faults/test_ray.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.runner.ray_cluster import Node

Call = Callable[..., Any]
RUN = ("run", "--suite", "smoke", "--executor", "ray")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--address", "foo"), "--address 'foo' is no address (allowed: auto, or host:port of a cluster's head node)"),
        (
            ("--address", "ray://here:10001"),
            "--address ray://here:10001: qbench runs on a node of the cluster (allowed: auto, or host:port of its head "
            "node; from outside, `ray job submit` brings the command there)",
        ),
        (
            ("--device", "cpu", "--gpus-per-cell", "1"),
            "--gpus-per-cell 1: cells take no GPU with --device cpu (allowed: auto, cuda)",
        ),
        (
            ("--device", "cuda", "--gpus-per-cell", "0"),
            "--gpus-per-cell 0: cells take a GPU with --device cuda (allowed: auto, cpu)",
        ),
        (
            ("--gpus-per-cell", "0.00001"),
            "--gpus-per-cell 1e-05 (allowed: a part of one GPU, such as 0.5, or a whole number)",
        ),
        (
            ("--spool", ""),
            "--spool '' is neither a folder nor a URL (allowed: a path, or s3://bucket/folder)",
        ),
        (
            ("--spool", "s3:/b/x"),
            "--spool 's3:/b/x' is neither a folder nor a URL (allowed: a path, or s3://bucket/folder)",
        ),
        (
            ("--spool", "memory://x"),
            "--spool memory://x: other machines do not see it (allowed: a path, or s3://bucket/folder)",
        ),
    ],
)
def test_what_is_refused_in_one_line(
    call: Call, own_folder: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], said: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = call(*RUN, *given)
    assert (found.code, found.out, found.err) == (2, "", f"qbench: {said}\n")
    assert list(own_folder.iterdir()) == []


def test_a_spool_that_cannot_be_written_is_told_of_at_once(call: Call, own_folder: Path) -> None:
    (own_folder / "file").touch()
    found = call(*RUN, "--spool", "file")
    assert found.code == 2 and found.out == ""
    assert found.err.startswith(f"qbench: cannot write {own_folder / 'file' / 'records'}: ")
    assert found.err.count("\n") == 1


def test_without_the_package_it_is_said_how_to_get_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    found = call(*RUN)
    assert (found.code, found.err) == (2, "qbench: --executor ray needs the package ray: pip install 'qbench[ray]'\n")


@pytest.mark.parametrize(("share", "cells"), [(0.1, 10), (0.2, 5), (0.3, 3), (1.0, 1), (2.0, 0)])
def test_as_many_cells_have_room_as_shares_make_a_whole(share: float, cells: int) -> None:
    assert Node("id", "name", 64.0, 1.0, 0).cells(1.0, share) == cells

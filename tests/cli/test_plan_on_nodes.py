"""`qbench plan --executor ray`: what cells take of a node, and how long some nodes need, with no cluster and no Ray."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from qbench.cli.cluster import gpus_per_cell
from qbench.cli.node_plan import by_kind
from qbench.cli.progress import roughly
from qbench.errors import QBenchError
from qbench.runner import own_node as own
from qbench.runner.node_hours import Node
from qbench.runner.ray_cluster import Node as RayNode
from qbench.store.folder import RunFolder
from qbench.store.summary import seconds_of

SUITE = ("--suite", "tiny.yaml")
ON_NODES = ("plan", *SUITE, "--executor", "ray")


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    """Have every machine be the same one, without GPUs."""
    node = Node(cpus=4, gpus=0, memory=2_000_000_000)
    monkeypatch.setattr(own, "own_node", lambda: node)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return node


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the package ray not be installed."""
    monkeypatch.setitem(sys.modules, "ray", None)


def test_it_tells_what_a_plan_costs(stored: Path, call: Any, no_ray: None) -> None:
    folder = RunFolder(Path("results/runs/tiny"))
    records = folder.read_all()
    for cell_id in records:
        folder.record_path(cell_id).unlink()
    gone = [record for record in records.values() if record.axes["method"] == "rtn"]
    for record in records.values():
        if record not in gone or record.axes["bits"] == 2:
            folder.write(record)
    known = seconds_of(next(record for record in gone if record.axes["bits"] == 2))
    found = json.loads(call(*ON_NODES, "--seeds", "2", "--json").out)["ray"]
    assert {one["form"] for one in found["cells"]} == {"fp", "quantized", "control"}
    assert all(one["memory_bytes"] > 5e8 and one["gpu_memory_bytes"] == 0 for one in found["cells"])
    # 2 GB hold two processes of 768 MiB and more, though there are 4 CPUs.
    assert found["cells_at_once"] == {"most": 2, "least": 2}
    assert found["times_known_by"] == {"stored": 6, "published": 0, "alike": 0, "unknown": 0}
    walls = found["wall_seconds"]
    assert walls["1"] >= walls["4"] >= walls["16"] == found["longest_chain_seconds"] > 0
    lines = call(*ON_NODES, "--nodes", "3").out.splitlines()
    assert "1 cells to run, 4 stored, 1 skipped" in lines
    at = next(index for index, line in enumerate(lines) if line.startswith("a cell takes 1 CPU"))
    assert lines[at + 1].startswith("  0.8 GB") or lines[at + 1].startswith("  0.9 GB")
    assert lines[at + 2].endswith("4 CPUs and 2.0 GB without the 30% that Ray keeps for objects: 2 cells at a time")
    assert lines[at + 3] == "times are known of 1 cells: 1 by stored cells"
    hours = f"{known / 2 / 3600:.2g} node-hours: 3 nodes at least "
    assert lines[at + 4] == f"{hours}{roughly(known)} (the longest chain of cells)"


def test_what_is_unknown_and_what_has_no_room_is_said(stored: Path, call: Any) -> None:
    said = call(*ON_NODES, "--out", "nothing", "--only", "method=rtn")
    assert said.code == 0 and "no time is known of 3 cells (" in said.out and "and 1 others): not counted" in said.out
    assert "node-hours" not in said.out
    said = call(*ON_NODES, "--only", "method=rtn", "--seeds", "2", "--cpus-per-cell", "8")
    assert "a cell takes 8 CPUs" in said.out and ": no room for a cell" in said.out
    assert "no node has room for 3 cells (" in said.out


def test_published_records_tell_times_where_none_are_stored(
    stored: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    only = ("--only", "method=rtn,bits=2,seed=0")
    said = call("plan", "--suite", "llm_lowbit", "--executor", "ray", "--out", stored / "none", *only)
    assert "by published records (results/records/llm_lowbit.jsonl.xz)" in said.out
    assert "node-hours: 1 node at least" in said.out


def test_a_plan_with_nothing_to_do_costs_nothing(stored: Path, call: Any) -> None:
    assert call(*ON_NODES).out == call("plan", *SUITE).out
    assert json.loads(call(*ON_NODES, "--json").out)["ray"]["node_hours"] == 0


def test_here_it_is_not_told(stored: Path, call: Any) -> None:
    assert call("plan", *SUITE, "--executor", "local", "--json").out == call("plan", *SUITE, "--json").out
    assert "ray" not in json.loads(call("plan", *SUITE, "--json").out)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--executor", "rai"), "unknown --executor 'rai': did you mean 'ray'? (allowed: local, ray)"),
        (("--address", "auto"), "--address: for --executor ray only (this is --executor local)"),
        (
            ("--cpus-per-cell", "2", "--gpus-per-cell", "1"),
            "--cpus-per-cell and --gpus-per-cell: for --executor ray only (this is --executor local)",
        ),
        (("--nodes", "4"), "--nodes: for --executor ray only (this is --executor local)"),
        (
            ("--executor", "ray", "--gpus-per-cell", "1.5"),
            "--gpus-per-cell 1.5 (allowed: a part of one GPU, such as 0.5, or a whole number)",
        ),
        (
            ("--executor", "ray", "--gpus-per-cell", "inf"),
            "--gpus-per-cell inf (allowed: a part of one GPU, such as 0.5, or a whole number)",
        ),
        (
            ("--executor", "ray", "--address", "auto", "--nodes", "4"),
            "--nodes 4: the cluster at auto has its own nodes (leave one of the two out)",
        ),
        (
            ("--executor", "ray", "--address", "auto"),
            "--executor ray needs the package ray: pip install 'qbench[ray]'",
        ),
    ],
)
def test_refusals(stored: Path, call: Any, no_ray: None, given: tuple[str, ...], said: str) -> None:
    found = call("plan", *SUITE, *given)
    assert (found.code, found.out, found.err) == (2, "", f"qbench: {said}\n")


@pytest.mark.parametrize(
    ("given", "device", "some", "found"),
    [
        (None, "auto", True, 1.0),
        (None, "auto", False, 0.0),
        (None, "cpu", True, 0.0),
        (None, "cuda", False, 1.0),
        (0.25, "auto", True, 0.25),
        (0.0, "auto", True, 0.0),
        (0.0, "cpu", True, 0.0),
    ],
)
def test_gpus_a_cell(given: float | None, device: str, some: bool, found: float) -> None:
    assert gpus_per_cell(given, device, some=some) == found


@pytest.mark.parametrize(
    ("given", "device", "said"),
    [
        (1.0, "cpu", "--gpus-per-cell 1: cells take no GPU with --device cpu (allowed: auto, cuda)"),
        (0.0, "cuda", "--gpus-per-cell 0: cells take a GPU with --device cuda (allowed: auto, cpu)"),
    ],
)
def test_gpus_that_a_device_does_not_take(given: float, device: str, said: str) -> None:
    with pytest.raises(QBenchError) as error:
        gpus_per_cell(given, device, some=True)
    assert str(error.value) == said


def test_nodes_of_a_cluster_are_told_by_their_kinds() -> None:
    sizes = [(2, 0, 17_300_000_000), (8, 4, 90 * 10**9), (2, 0, 17_100_000_000), (2, 0, 8 * 10**9)]
    nodes = [RayNode(str(index), "", cpus, gpus, memory) for index, (cpus, gpus, memory) in enumerate(sizes)]
    assert by_kind(nodes) == [
        Node(2, 0, 17_100_000_000, count=2),
        Node(8, 4, 90 * 10**9),
        Node(2, 0, 8 * 10**9),
    ]


def test_a_machine_is_what_ray_would_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own._gpus(tmp_path / "none") == 0
    for name in ("a", "b", "c"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert own._gpus(tmp_path / "gpus") == 3
    for visible, count in (("0,2", 2), ("", 0), ("0,1,2,3", 3)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert own._gpus(tmp_path / "gpus") == count
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("4096\n")
    assert own._limits(tmp_path) == [4096]

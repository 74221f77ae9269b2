"""A cluster of Ray whose nodes, workers and objects are lost: nothing that has ended is, and no cell is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from qbench.errors import QBenchError
from qbench.quantizers.absmax import AbsMax
from qbench.runner.local import LocalExecutor
from qbench.runner.planning import plan
from qbench.runner.ray_executor import RayExecutor, _Run
from qbench.runner.run import run
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell

cluster_utils = pytest.importorskip("ray.cluster_utils")

RUNNER = Path(__file__).parents[1] / "runner"
Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a cluster of several nodes on one machine"),
    pytest.mark.timeout(900),
    pytest.mark.slow,
    # Ray closes its own sockets and files when its processes are gone, and not before.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def make_cluster(**head: Any) -> Any:
    # Workers find the toys as those of this machine do.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(RUNNER), before]))
    try:
        return cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **head}
        )
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def add_node(cluster: Any, **options: Any) -> Any:
    env = {"PYTHONPATH": str(RUNNER), **options.pop("env_vars", {})}
    return cluster.add_node(num_cpus=1, env_vars=env, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster of two nodes with a CPU each, beside a head that runs nothing."""
    made = make_cluster()
    for _ in range(2):
        add_node(made)
    yield made
    made.shutdown()


def cell(toys: ModuleType, method: Any = None, bits: int = 4, seed: int = 0) -> Cell:
    model = toys.Toy(name="toy")
    if method is None:
        return Cell(model, None, None, None, seed, ("loss",))
    return Cell(model, AbsMax(name="absmax"), bits, method, seed, ("loss",))


def go(cells: list[Cell], path: Path, executor: Any, done: Callable[[Record], None] = lambda _: None) -> Any:
    folder = RunFolder(path)
    return run(plan(cells, folder), "faults", folder, executor, done)


def what_counts(records: Mapping[str, Record]) -> dict[str, object]:
    return {
        cell_id: (one.status, one.metrics, one.documents, one.layers, one.traces, one.weights_sha256, one.key)
        for cell_id, one in records.items()
    }


def weights_in(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in (path / "weights").glob("*")}


def on(cluster: Any, **options: Any) -> RayExecutor:
    return RayExecutor(cluster.address, "cpu", **options)


@pytest.fixture
def many(toys: ModuleType) -> list[Cell]:
    """Return cells of three models, with a probe that reads two of them."""
    rtn, noisy = toys.RoundToNearest(name="rtn"), toys.Noisy(name="noisy")
    cells = [cell(toys, seed=seed) for seed in range(3)]
    cells += [cell(toys, rtn, bits, seed) for seed in range(3) for bits in (4, 3, 2)]
    cells += [cell(toys, noisy)]
    probe = replace(cell(toys, rtn), method=None, probe=toys.Reader(name="reader"), points=(cells[3], cells[-1]))
    return [probe, *cells]


@pytest.mark.parametrize("spooled", [False, True])
def test_a_cluster_gives_the_records_of_one_machine_byte_for_byte(
    cluster: Any, many: list[Cell], tmp_path: Path, spooled: bool
) -> None:
    here = go(many, tmp_path / "here", LocalExecutor(2, "cpu", threads_each=1))
    there = go(many, tmp_path / "there", on(cluster, spool=str(tmp_path / "spool") if spooled else None))
    assert all(one.clean for one in here.values()) and len(here) == 14
    assert what_counts(here) == what_counts(there)
    assert weights_in(tmp_path / "here") == weights_in(tmp_path / "there") != {}
    assert {one.environment["allocator"] for one in there.values()} == {"pinned"}
    if spooled:
        assert weights_in(tmp_path / "spool") == weights_in(tmp_path / "there")


def test_a_node_that_is_killed_costs_no_cell(cluster: Any, toys: ModuleType, tmp_path: Path) -> None:
    node, log = add_node(cluster), tmp_path / "log"
    cells = [cell(toys), *(cell(toys, toys.Waits(name="waits", seconds=1.0, log=log), bits) for bits in range(2, 9))]
    ended: list[str] = []

    def done(record: Record) -> None:
        ended.append(record.cell_id)
        if len(ended) == 3:
            cluster.remove_node(node, allow_graceful=False)

    found = go(cells, tmp_path / "run", on(cluster), done)
    assert len(found) == len(ended) == len(set(ended)) == 8
    assert all(one.clean for one in found.values()), [one.reason for one in found.values() if not one.clean]
    alone = go(cells, tmp_path / "alone", LocalExecutor(2, "cpu", threads_each=1))
    assert what_counts(found) == what_counts(alone)


def test_a_worker_that_dies_twice_or_takes_too_long_costs_its_own_cell(
    cluster: Any, toys: ModuleType, tmp_path: Path
) -> None:
    cells = [
        cell(toys),
        cell(toys, toys.Dies(name="dies")),
        cell(toys, toys.Holds(name="holds", until=tmp_path / "never")),
        cell(toys, toys.RunsOut(name="runs_out")),
        cell(toys, toys.Raises(name="raises")),
        *(cell(toys, toys.RoundToNearest(name="rtn"), bits) for bits in (8, 3, 2)),
    ]
    found = go(cells, tmp_path / "run", on(cluster, timeout=4.0))
    reasons = {str(one.axes["method"]).partition("[")[0]: (one.status, one.reason) for one in found.values()}
    assert reasons["dies"][0] == "failed" and "died twice without a word" in str(reasons["dies"][1])
    assert reasons["holds"] == ("timeout", "not done after 4 s (--timeout)")
    assert reasons["runs_out"] == ("failed", "out of memory: MemoryError")
    assert reasons["raises"] == ("failed", "RuntimeError: no luck today")
    assert Counter(one.status for one in found.values()) == {"ok": 4, "failed": 3, "timeout": 1}


def test_shared_weights_that_are_lost_are_shared_again(
    cluster: Any, many: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    put, lost = _Run._point, list[str]()

    def loses_the_first(self: _Run, cell_id: str) -> Any:
        if lost:
            return put(self, cell_id)
        lost.append(cell_id)
        node = add_node(cluster, resources={"doomed": 1})
        kept_there = ray.remote(num_cpus=0, resources={"doomed": 1}, max_retries=0)(lambda: bytes(1 << 20)).remote()
        ray.wait([kept_there], fetch_local=False)
        cluster.remove_node(node, allow_graceful=False)
        return kept_there

    monkeypatch.setattr(_Run, "_point", loses_the_first)
    found = go(many, tmp_path / "run", on(cluster))
    assert lost and len(found) == 14
    assert all(one.clean for one in found.values()), [one.reason for one in found.values() if not one.clean]


def test_others_do_not_wait_for_a_straggler(cluster: Any, toys: ModuleType, tmp_path: Path) -> None:
    until = tmp_path / "until"
    slow = cell(toys, toys.Holds(name="holds", until=until))
    quick = [cell(toys, toys.RoundToNearest(name="rtn"), bits) for bits in range(2, 9)]
    ended: list[str] = []

    def done(record: Record) -> None:
        ended.append(record.label)
        if len(ended) == 8:  # all but one: it could wait for ever
            until.touch()

    found = go([cell(toys), slow, *quick], tmp_path / "run", on(cluster), done)
    assert "holds" in ended[-1] and len(ended) == len(set(ended)) == len(found) == 9


def test_a_node_with_other_versions_is_told_of_before_anything_runs(
    cluster: Any, toys: ModuleType, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "torch-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    path = os.pathsep.join([str(other.parent), str(RUNNER)])
    node = add_node(cluster, env_vars={"PYTHONPATH": path})
    try:
        with pytest.raises(QBenchError, match=r"^node .* has torch 9\.9\.9 \(here .*\): install the same versions on"):
            go([cell(toys)], tmp_path / "run", on(cluster))
    finally:
        cluster.remove_node(node)
    assert not (tmp_path / "run" / "records").exists()


def test_a_node_without_the_data_gets_them_once_and_verifies_them(cluster: Any, tmp_path: Path) -> None:
    from qbench.tasks.causal_lm import ZooLM

    cache = tmp_path / "cache"
    node = add_node(cluster, resources={"bare": 1}, env_vars={"QBENCH_CACHE": str(cache)})
    spec = ZooLM(name="llama-1m", evaluation_windows=8, calibration_windows=8)
    cells = [Cell(spec, None, None, None, 0, ("loss",))]
    try:
        here = go(cells, tmp_path / "here", LocalExecutor(1, "cpu", threads_each=1))
        # Both other nodes are kept busy by asking for more cells at a time than they have room for.
        executor = replace(on(cluster), environment={"QBENCH_CACHE": str(cache)})
        there = go(cells, tmp_path / "there", executor)
    finally:
        cluster.remove_node(node)
    assert what_counts(here) == what_counts(there) and all(one.clean for one in there.values())
    assert len(list((cache / "corpus").glob("*.jsonl"))) == 3


def test_a_worker_that_takes_too_much_memory_is_tried_once_more(toys: ModuleType, tmp_path: Path) -> None:
    memory = psutil.virtual_memory()
    room = 3 << 30
    if memory.available < 3 * room:
        pytest.skip("needs 9 GB of free memory")
    threshold = (memory.total - memory.available + room) / memory.total
    made = make_cluster(_system_config={"memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100})
    try:
        add_node(made)
        before = tmp_path / "before"
        grows = cell(toys, toys.Grows(name="grows", before=before, most_bytes=2 * room))
        rtn = cell(toys, toys.RoundToNearest(name="rtn"))
        told: list[str] = []
        folder = RunFolder(tmp_path / "run")
        found = run(
            plan([cell(toys), grows, rtn], folder),
            "faults",
            folder,
            RayExecutor(made.address, "cpu"),
            lambda record: None,
            lambda one: told.append(one.cell.label()),
        )
    finally:
        made.shutdown()
    assert before.exists() and all(one.clean for one in found.values()) and len(found) == 3
    assert told.count(grows.label()) == 2 and told.count(rtn.label()) == 1


def test_a_run_waits_for_nodes_when_all_are_lost(toys: ModuleType, tmp_path: Path) -> None:
    made = make_cluster()
    try:
        node, said = add_node(made), list[str]()
        cells = [cell(toys), *(cell(toys, toys.Waits(name="waits", seconds=0.5), bits) for bits in (2, 3, 4, 5))]
        ended: list[str] = []

        def done(record: Record) -> None:
            ended.append(record.cell_id)
            if len(ended) == 2:
                made.remove_node(node, allow_graceful=False)

        def say(line: str) -> None:
            said.append(line)
            add_node(made)  # what a cluster that grows by itself does, sooner or later

        found = go(cells, tmp_path / "run", RayExecutor(made.address, "cpu", say=say), done)
    finally:
        made.shutdown()
    assert said == ["no node of the cluster has room for a cell: waiting up to 600 s"]
    assert len(ended) == len(set(ended)) == len(found) == 5 and all(one.clean for one in found.values())


def test_a_cell_that_no_node_has_room_for_is_told_of(cluster: Any, toys: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(QBenchError, match=r"^a cell takes 64 CPUs, and no node of the cluster has that \(--cpus-per-"):
        go([cell(toys)], tmp_path / "run", on(cluster, cpus=64))


WAITING = ("--suite", "waiting.yaml", "--device", "cpu", "--executor", "ray")


def test_a_driver_that_is_killed_goes_on_from_what_workers_have_left(
    cluster: Any, start: Start, folders: Any, tmp_path: Path
) -> None:
    call = ("run", *WAITING, "--address", cluster.address, "--out", tmp_path / "run", "--spool", tmp_path / "spool")
    driver = start(*call)
    folders.wait_until(lambda: folders.count(tmp_path / "run") >= 3)
    driver.kill()
    driver.communicate()
    assert folders.unsound(tmp_path / "run") == [] and folders.unsound(tmp_path / "spool") == []
    # What a driver has not heard of, because it was dead: its record is on the spool alone.
    lost = max((tmp_path / "run" / "records").glob("*.json"), key=lambda path: path.stat().st_mtime)
    kept = folders.results(tmp_path / "run")
    lost.unlink()
    again = start(*call)
    _, said = again.communicate(timeout=folders.patience)
    assert again.returncode == 0, said
    assert f"their records are taken from {tmp_path / 'spool'}" in said
    assert folders.count(tmp_path / "run") == 9 and kept.items() <= folders.results(tmp_path / "run").items()
    assert folders.unsound(tmp_path / "run") == []


def test_an_interrupted_run_leaves_nothing_behind_and_goes_on(
    cluster: Any, start: Start, folders: Any, tmp_path: Path
) -> None:
    call = ("run", *WAITING, "--address", cluster.address, "--out", tmp_path / "run")
    driver = start(*call)
    folders.wait_until(lambda: folders.count(tmp_path / "run") >= 3)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130 and "stopped: what has ended is in" in said and "Traceback" not in said
    kept = folders.count(tmp_path / "run")
    assert folders.unsound(tmp_path / "run") == [] and not list((tmp_path / "run").rglob("*.tmp"))
    again = start(*call)
    _, said = again.communicate(timeout=folders.patience)
    assert again.returncode == 0, said
    assert (
        f"waiting: {9 - kept} cells to run, {kept} from the records in" in said and folders.count(tmp_path / "run") == 9
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "ray://localhost:10001",
            "qbench runs on a node of the cluster (allowed: auto, or host:port of its head node; ",
        ),
        ("localhost:1", "no cluster of Ray can be reached there ("),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_line(
    toys: ModuleType, tmp_path: Path, address: str, said: str
) -> None:
    with pytest.raises(QBenchError) as caught:
        go([cell(toys)], tmp_path, RayExecutor(address, "cpu"))
    assert str(caught.value).startswith(f"--address {address}: {said}") and "\n" not in str(caught.value)

"""100 000 cells that do nothing, through plan, dispatch and store: what a run itself costs.

Usage: ``python tests/perf/scale.py [--cells N] [--executor ray|local] [--write]``. The suite is enumerated, planned,
handed out as tasks to a cluster of Ray on this machine, and every record and weight file is written as in any run; the
cells alone are replaced by a function that makes up a record as long as real ones. Then the same plan is made
again in a new process, as a run that goes on would. With --write the table in docs/scale.md is renewed.

What bounds it: a cell is one task of Ray (two messages each way), one record parsed and written, one weight file
written, both synced and renamed; the driver does all of it but the message's other end, in one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "scale.md"
SUITE = """
name: nothing
matrix:
  models: [toy]
  quantizers: [{quantizers}]
  bits: [8, 7, 6, 5, 4, 3, 2]
  methods: [rtn, gptq, adaround, noisy]
  seeds: {seeds}
metrics: [loss]
"""
WAYS = ("absmax", "{name: absmax, granularity: {per_group: 64}}", "mse", "percentile", "hqq")
PER_SEED = 4 * 7 * len(WAYS) + 1
WEIGHTS = b"no weights"


def nothing(orders: Any, packed: Any, points: Any, files: Any) -> Iterator[tuple[str, str, Any]]:
    """Say what a cell says, and do nothing."""
    import numpy as np

    yield "begun", "node", None
    record, weights = made_up(orders.suite, packed)
    yield "record", record, None if weights is None else np.frombuffer(weights, dtype=np.uint8)


def made_up(suite: str, packed: Any) -> tuple[str, bytes | None]:
    """Return a record as long as real ones without layers and documents, and packed weights."""
    from qbench.runner import worker
    from qbench.store.schema import dump_record

    planned = worker.unpack(*packed)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = planned.not_executed(suite, "ok", "", now)
    record.reason, record.metrics = None, {"loss/blocks128": 3.0, "weight_sqnr_db": 20.0}
    record.facts = {"grid": "symmetric full_range", "floating_point": "embed_tokens, norm", "parameters": 1_000_000}
    weights = None if planned.cell.quantizer is None else WEIGHTS
    record.weights_sha256 = None if weights is None else hashlib.sha256(weights).hexdigest()
    return dump_record(record), weights


def planned_by(folder: Path, seeds: int) -> tuple[Any, dict[str, float]]:
    """Return the plan of the suite, and how long enumeration and planning took."""
    install()
    from qbench.runner.planning import plan
    from qbench.store.folder import RunFolder
    from qbench.suite.enumerate import enumerate_cells
    from qbench.suite.load import load_suite

    suite = folder / "nothing.yaml"
    suite.write_text(SUITE.format(seeds=seeds, quantizers=", ".join(WAYS)))
    started = time.perf_counter()
    cells = enumerate_cells(load_suite(str(suite)))
    enumerated = time.perf_counter()
    runs = RunFolder(folder / "run")
    runs.summaries()
    scanned = time.perf_counter()
    found = plan(cells, runs)
    return found, {
        "enumerate": enumerated - started,
        "resume scan": scanned - enumerated,
        "plan": time.perf_counter() - scanned,
    }


def run(folder: Path, seeds: int, executor: str) -> dict[str, float]:
    """Run the suite, and return what it took."""
    todo, found = planned_by(folder, seeds)
    from qbench.runner.run import run as run_plan
    from qbench.store.folder import RunFolder

    runs, count, marks = RunFolder(folder / "run"), [0], list[float]()

    def done(_: Any) -> None:
        count[0] += 1
        if count[0] == 100:  # from then on workers are there
            marks.append(time.perf_counter())

    with runs.lock():
        run_plan(todo, "nothing", runs, in_this_process() if executor == "local" else on_ray(), done)
    found["cells"] = len(todo.todo)
    found["cells a second"] = (len(todo.todo) - 100) / (time.perf_counter() - marks[0])
    return found | {"driver MB": peak()}


def on_ray() -> Any:
    from qbench.runner.ray_executor import RayExecutor

    return RayExecutor(device="cpu", in_flight=FLIGHTS, cpus=1, execute=nothing)


def in_this_process() -> Any:
    from qbench import atomic
    from qbench.runner import worker
    from qbench.store.schema import parse_record

    class Executor:
        def run(self, cells: Any, suite: str, weights_path: Callable[[str], Path], begun: Any) -> Iterator[Any]:
            for planned in cells:
                text, weights = made_up(suite, worker.pack(planned))
                if weights is not None:
                    atomic.write_bytes(weights_path(planned.cell_id), weights)
                yield parse_record(text)

    return Executor()


FLIGHTS = 8


def again(folder: Path, seeds: int) -> dict[str, float]:
    """Plan the same suite with its folder full, and return what that took."""
    todo, found = planned_by(folder, seeds)
    assert not todo.todo, f"{len(todo.todo)} cells would be run again"
    started = time.perf_counter()
    count = sum(1 for _ in os.scandir(folder / "run" / "records"))
    found["listing"] = time.perf_counter() - started
    assert count >= len(todo.stored)
    return found | {"driver MB": peak(), "records MB": size_of(folder / "run" / "records") / 1e6}


def size_of(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def peak() -> float:
    """Return the most memory that this process has had, MB."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def install() -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent / "runner")]
    import toys

    toys.install()


def table(sizes: dict[int, tuple[dict[str, float], dict[str, float]]], executor: str) -> str:
    """Return the page's table."""
    from tabulate import tabulate

    heads = [
        "cells", "enumerate, s", "plan, s", "cells a second", "run's memory, MB", "records, MB",
        "listing, ms", "resume scan, s", "plan again, s", "its memory, MB",
    ]  # fmt: skip
    rows = [
        [
            int(first["cells"]), f"{first['enumerate']:.2f}", f"{first['plan']:.2f}", f"{first['cells a second']:.0f}",
            f"{first['driver MB']:.0f}", f"{second['records MB']:.0f}", f"{second['listing'] * 1e3:.0f}",
            f"{second['resume scan']:.2f}", f"{second['plan']:.2f}", f"{second['driver MB']:.0f}",
        ]
        for first, second in sizes.values()
    ]  # fmt: skip
    where = {"ray": f"Ray on this machine, {FLIGHTS} cells at a time", "local": "no executor at all"}[executor]
    head = f"Cells that do nothing, {os.cpu_count()} cores, {where} (`python tests/perf/scale.py --write`):"
    return head + "\n\n" + tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--cells", type=int, default=100_000)
    asked.add_argument("--executor", choices=["ray", "local"], default="ray")
    asked.add_argument("--write", action="store_true", help="renew the table of docs/scale.md")
    asked.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.step:
        step, folder, seeds = given.step
        found = run(Path(folder), int(seeds), given.executor) if step == "run" else again(Path(folder), int(seeds))
        sys.stdout.write(json.dumps(found) + "\n")
        return
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "runner")])}
    sizes = {}
    for cells in (given.cells // 100, given.cells // 10, given.cells):
        seeds = max(1, -(-cells // PER_SEED))
        with tempfile.TemporaryDirectory() as folder:
            parts = []
            for step in ("run", "again"):
                command = [sys.executable, __file__, "--executor", given.executor, "--step", step, folder, str(seeds)]
                done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
                parts.append(json.loads(done.stdout.splitlines()[-1]))
            sizes[cells] = (parts[0], parts[1])
            sys.stdout.write(f"{parts}\n")
    text = table(sizes, given.executor)
    sys.stdout.write(text + "\n")
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        marks = re.compile(r"(<!-- simulation -->).*?(<!-- /simulation -->)", re.DOTALL)
        PAGE.write_text(marks.sub(lambda match: f"{match[1]}\n\n{text}\n\n{match[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()

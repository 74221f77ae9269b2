"""`qbench repeat`: the cells of a run again, under other arithmetic, in folders of their own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.store.folder import RunFolder, repeat_folders
from qbench.store.record import Record

SUITE = """\
name: toy_suite
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [4]
  methods: [rtn]
  seeds: 1
metrics: [loss]
"""
ARGUMENTS = ("--suite", "toy_suite.yaml", "--device", "cpu")


def ground(record: Record) -> tuple[str, int]:
    return record.environment["cpu_capability"], record.environment["threads"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_repeats_are_kept_apart_and_say_how_they_were_computed(toys: ModuleType, call: Any) -> None:
    Path("toy_suite.yaml").write_text(SUITE)
    assert call("run", *ARGUMENTS, "--jobs", "1").code == 0
    folder = RunFolder(Path("results/runs/toy_suite"))
    own = folder.read_all()
    said = call("repeat", *ARGUMENTS, "--times", "2")
    assert said.code == 0 and said.out == ""
    lines = [line for line in said.err.splitlines() if not line.endswith((" left", ", estimating"))]
    assert len(lines) == 4 and all(line.startswith("2 of 2 cells, ") for line in lines[1::2])
    grounds = [{ground(record) for record in own.values()}]
    for number, line in enumerate(lines[::2], 1):
        path = folder.path / "repeats" / str(number)
        records = RunFolder(path).read_all()
        assert records.keys() == own.keys() and all(record.clean for record in records.values())
        grounds.append({ground(record) for record in records.values()})
        ((capability, threads),) = grounds[-1]
        way = f"{capability} instructions, {threads} thread{'s' * (threads > 1)} a process"
        assert line == f"toy_suite, repeat {number} of 2 ({way}): 2 cells to run, 0 from the records in {path}"
        for cell_id, record in records.items():
            assert record.loss == pytest.approx(own[cell_id].loss, rel=1e-4)
    assert grounds[0] not in grounds[1:] and grounds[1] != grounds[2]
    assert folder.read_all() == own
    assert [path.name for path in repeat_folders(folder.path)] == ["1", "2"]

    again = call("repeat", *ARGUMENTS, "--times", "1")
    assert again.code == 0
    assert again.err.endswith(": 0 cells to run, 2 from the records in results/runs/toy_suite/repeats/1\n")

"""What a cell costs beside its method and its evaluation.

Two copies of a 3.7 MB model, the evidence of 28 layers (two products of rows x n with n x n each, 0.1 GFLOP in all, and
a sort of each row), packing 0.79 M codes into bits (some eight bytes moved a bit), and a record of some 100 KB written,
synced and renamed: 10 to 20 ms of work, most of it small operations. Under 50 ms a cell a suite of a thousand cells
spends less than a minute on them.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell
from qbench.tasks.causal_lm import ZooLM

MOST_SECONDS = 0.05


@pytest.mark.benchmark(group="runner, a cell of llama-1m beside its method and evaluation")
@pytest.mark.parametrize("bits", [2, 8])
def test_overhead(benchmark: BenchmarkFixture, tmp_path: Path, bits: int) -> None:
    model = ZooLM(name="llama-1m", calibration_windows=8, evaluation_windows=8)
    planned = identify(Cell(model, AbsMax(name="absmax"), bits, RoundToNearest(name="rtn"), 0, ("loss",)))
    session, folder, beside = Session("cpu"), RunFolder(tmp_path), []

    def cell() -> Record:
        started = time.perf_counter()
        record = execute(planned, "perf", session, folder.weights_path(planned.cell_id))
        folder.write(record)
        beside.append(time.perf_counter() - started - record.cost.method_seconds - record.cost.evaluation_seconds)
        return record

    record = benchmark.pedantic(cell, rounds=30, warmup_rounds=3)
    assert record.clean
    benchmark.extra_info["milliseconds beside method and evaluation"] = min(beside) * 1e3
    assert min(beside) < MOST_SECONDS

"""What every timing is set beside: the rate of a large matrix product on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

SIZE = 1536


def matmul_gflops() -> float:
    """Return the best of several products of square float32 matrices on one thread, in GFLOP/s."""
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2 * SIZE**3 / min(seconds) / 1e9


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    machine_info["matmul GFLOP/s"] = matmul_gflops()
    machine_info["torch"] = torch.__version__
    torch.set_num_threads(threads)


@pytest.fixture
def in_turns() -> Callable[..., float]:
    """Return a function that times ours in turns with a reference, keeps and returns the median of their ratios."""

    def timed(
        benchmark: BenchmarkFixture,
        ours: Callable[[], object],
        reference: Callable[[], object],
        pairs: int,
        name: str,
    ) -> float:
        seconds: list[float] = []

        def timed_reference() -> None:
            start = time.perf_counter()
            reference()
            seconds.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=timed_reference, rounds=pairs, warmup_rounds=1)
        both = zip(benchmark.stats.stats.data, seconds[-pairs:], strict=True)
        benchmark.extra_info[name] = ratio = statistics.median(mine / its for mine, its in both)
        return ratio

    return timed

"""What every timing is set beside: the rate of a large matrix product on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

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

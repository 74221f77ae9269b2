"""Codebooks of many rows, beside the search of a range.

The search of a range goes 80 times over the weights: 256 x 1024 x 80 = 21 M roundings. K-means sorts each row once and
then works on sums: a pass of the windowed search costs 2^b levels times the square of a window a row, 256 x 16 x some
300 = 1.2 M steps of dynamic programming at 4 bits, a few dozen passes of many small operations each. So it is an order
of magnitude above, more at many levels.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.quantizers.kmeans import KMeans
from qbench.quantizers.layout import choose_grid
from qbench.quantizers.mse import MeanSquaredError

PAIRS = 5


@pytest.mark.benchmark(group="k-means of 256x1024")
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_beside_the_search_of_a_range(benchmark: BenchmarkFixture, bits: int) -> None:
    weight = torch.randn(256, 1024, generator=torch.Generator().manual_seed(0))
    seconds: list[float] = []

    def timed_reference() -> None:
        start = time.perf_counter()
        choose_grid(weight, MeanSquaredError(name="mse"), bits)
        seconds.append(time.perf_counter() - start)

    rule = KMeans(name="kmeans")
    benchmark.pedantic(lambda: choose_grid(weight, rule, bits), setup=timed_reference, rounds=PAIRS, warmup_rounds=1)
    pairs = zip(benchmark.stats.stats.data, seconds[-PAIRS:], strict=True)
    benchmark.extra_info["ratio to mse"] = statistics.median(mine / its for mine, its in pairs)

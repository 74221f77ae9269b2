"""Fake quantization on tables of levels, beside a search for each weight.

A weight of 1024 x 4096 in float32 is read and written once: 32 MiB, 3 ms at 10 GB/s, as on integers. What a table adds
is a place in it. A search by bisection mispredicts a branch for each bit of a code, some 20 cycles each: 4 M weights x
4 bits x 20 cycles at 3 GHz are over 100 ms. By even cells it is a product, a conversion and three look-ups a weight,
all in the cache: some 10 cycles, 15 ms.

Ours and the search take turns in one process with one thread, and the ratio is the median over the pairs.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from qbench.quant.fused import round_to_levels
from qbench.quant.snapping import TableSnapping
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS

SHAPE = (1024, 4096)
PAIRS = 7


def searched(weight: Tensor, scale: Tensor, snapping: TableSnapping, out: Tensor) -> Tensor:
    places = torch.bucketize(weight / scale, snapping.boundaries, out_int32=True)
    return torch.mul(snapping.table[places], scale, out=out)


@pytest.mark.benchmark(group="fake quantize 1024x4096, tables")
@pytest.mark.parametrize(("name", "bits"), [("nf", 4), ("fp", 4), ("seq", 2), ("nf", 8)])
def test_faster_than_a_search(benchmark: BenchmarkFixture, name: str, bits: int) -> None:
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    grid = choose_grid(weight, QUANTIZERS.get(name).model_validate({"name": name}), bits)  # type: ignore[arg-type]
    snapping = grid.levels.snapping(grid.zero_point)
    assert isinstance(snapping, TableSnapping)
    ours, theirs = torch.empty_like(weight), torch.empty_like(weight)
    seconds: list[float] = []

    def timed_reference() -> None:
        start = time.perf_counter()
        searched(weight, grid.scale, snapping, theirs)
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(
        lambda: round_to_levels(weight, grid, ours), setup=timed_reference, rounds=PAIRS, warmup_rounds=2
    )
    assert torch.equal(ours, theirs)
    pairs = zip(benchmark.stats.stats.data, seconds[-PAIRS:], strict=True)
    ratio = statistics.median(mine / its for mine, its in pairs)
    benchmark.extra_info["ratio to a search"] = ratio
    assert ratio <= 0.6

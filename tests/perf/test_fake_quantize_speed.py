"""Forward and backward pass of fake quantization, beside torch's own fused operators.

A weight of 1024 x 4096 is 16 MiB in float32, and each pass does a handful of operations a weight: 4 M x 4 = 17 MFLOP
forward, 4 M x 10 = 42 MFLOP backward for LSQ. So memory is the limit. Straight-through, forward: read the weight, write
the result, 32 MiB, 3 ms at 10 GB/s; backward: nothing but handing the gradient on. With a mask: read weight and
gradient again, write one, 48 MiB more. LSQ moves the same 80 MiB: some 8 ms. Done operation by operation over the whole
matrix, the forward pass alone would move 4 x 32 = 128 MiB and LSQ's two 500 MiB; in bands that stay in the cache it
does not.
torch's operators are one loop each, but keep a mask of one byte a weight, and the learnable one goes over the matrix
three times in its backward pass.

Ours and torch's take turns in one process with one thread, and the ratio is the median over the pairs. The allocator
matters: glibc gives large temporaries back to the system at each call, and page faults then cost more than the
arithmetic. MALLOC_MMAP_THRESHOLD_=1073741824 and MALLOC_TRIM_THRESHOLD_=4294967296 keep them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from qbench.quant.block_grid import BlockGrid
from qbench.quant.ste import fake_quantize_lsq, fake_quantize_ste
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

SHAPE = (1024, 4096)
PAIRS = 15

Quantize = Callable[[Tensor, BlockGrid], Tensor]


def torch_fixed(weight: Tensor, grid: BlockGrid) -> Tensor:
    levels = grid.levels
    zero_point = grid.zero_point.flatten().int()
    return torch.fake_quantize_per_channel_affine(
        weight, grid.scale.flatten(), zero_point, 0, levels.quant_min, levels.quant_max
    )


def torch_learnable(weight: Tensor, grid: BlockGrid) -> Tensor:
    scale, zero_point = grid.scale.flatten().requires_grad_(), grid.zero_point.flatten()
    return torch._fake_quantize_learnable_per_channel_affine(
        weight, scale, zero_point, 0, grid.levels.quant_min, grid.levels.quant_max, 1e-3
    )


def by_ste(weight: Tensor, grid: BlockGrid) -> Tensor:
    return fake_quantize_ste(weight, grid, masked=False)


def by_masked_ste(weight: Tensor, grid: BlockGrid) -> Tensor:
    return fake_quantize_ste(weight, grid, masked=True)


def by_lsq(weight: Tensor, grid: BlockGrid) -> Tensor:
    return fake_quantize_lsq(weight, grid.scale.detach().requires_grad_(), grid, 1e-3)


def drawn(granularity: object, symmetric: bool) -> tuple[Tensor, BlockGrid]:
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rule = AbsMax.model_validate({"name": "absmax", "granularity": granularity, "symmetric": symmetric})
    return weight, choose_grid(weight, rule, 4)


def both_passes(quantize: Quantize, weight: Tensor, grid: BlockGrid) -> Callable[[], None]:
    upstream = torch.ones(SHAPE)

    def run() -> None:
        quantize(weight, grid).backward(upstream)
        weight.grad = None

    return run


@pytest.mark.benchmark(group="fake quantize 1024x4096, per channel")
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize(
    ("quantize", "reference"),
    [(by_ste, torch_fixed), (by_masked_ste, torch_fixed), (by_lsq, torch_learnable)],
)
def test_no_slower_than_torch(
    benchmark: BenchmarkFixture, quantize: Quantize, reference: Quantize, symmetric: bool
) -> None:
    weight, grid = drawn("per_channel", symmetric)
    ours, theirs = both_passes(quantize, weight, grid), both_passes(reference, weight, grid)
    seconds: list[float] = []

    def timed_reference() -> None:
        start = time.perf_counter()
        theirs()
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(ours, setup=timed_reference, rounds=PAIRS, warmup_rounds=3)
    pairs = zip(benchmark.stats.stats.data, seconds[-PAIRS:], strict=True)
    ratio = statistics.median(mine / its for mine, its in pairs)
    benchmark.extra_info["ratio"] = ratio
    assert ratio <= 1.0


@pytest.mark.benchmark(group="fake quantize 1024x4096, groups of 64")
@pytest.mark.parametrize("quantize", [by_ste, by_masked_ste, by_lsq])
def test_groups(benchmark: BenchmarkFixture, quantize: Quantize) -> None:
    benchmark.pedantic(both_passes(quantize, *drawn({"per_group": 64}, symmetric=False)), rounds=PAIRS, warmup_rounds=3)

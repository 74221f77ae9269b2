"""Forward and backward pass of fake quantization, beside torch's own operator.

A weight of 1024 x 4096 is 16 MiB in float32. The straight-through forward pass is six elementwise operations (divide,
round, add, clamp, subtract, multiply), each of which reads and writes the matrix once: 6 x 32 MiB = 192 MiB, against
about 6 x 4 M = 25 MFLOP. So memory bandwidth is the limit: about 20 ms at 10 GB/s. Its backward pass hands the gradient
on and moves nothing but what autograd accumulates. torch's fused operator moves 36 MiB forward (with a mask of one byte
a weight) and 36 MiB backward. LSQ adds the slope of the step size, some five more passes.

The allocator matters: glibc gives large temporaries back to the system at each call, and page faults then cost more
than the arithmetic. MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set high keep them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from qbench.quant.affine import AffineGrid
from qbench.quant.ste import fake_quantize_lsq, fake_quantize_ste
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

SHAPE = (1024, 4096)

Quantize = Callable[[Tensor, AffineGrid], Tensor]


def by_torch(weight: Tensor, grid: AffineGrid) -> Tensor:
    levels = grid.levels
    return torch.fake_quantize_per_channel_affine(
        weight, grid.scale.flatten(), grid.zero_point.flatten().int(), 0, levels.quant_min, levels.quant_max
    )


def by_ste(weight: Tensor, grid: AffineGrid) -> Tensor:
    return fake_quantize_ste(weight, grid, masked=False)


def by_masked_ste(weight: Tensor, grid: AffineGrid) -> Tensor:
    return fake_quantize_ste(weight, grid, masked=True)


def by_lsq(weight: Tensor, grid: AffineGrid) -> Tensor:
    return fake_quantize_lsq(weight, grid.scale.requires_grad_(), grid, 1e-3)


def measure(benchmark: BenchmarkFixture, quantize: Quantize, granularity: object) -> None:
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rule = AbsMax.model_validate({"name": "absmax", "granularity": granularity, "symmetric": False})
    grid = choose_grid(weight, rule, 4)
    upstream = torch.ones(SHAPE)

    def both_passes() -> None:
        quantize(weight, grid).backward(upstream)
        weight.grad = None

    benchmark.pedantic(both_passes, rounds=15, warmup_rounds=3)


@pytest.mark.benchmark(group="fake quantize 1024x4096, per channel")
@pytest.mark.parametrize("quantize", [by_torch, by_ste, by_masked_ste, by_lsq])
def test_per_channel(benchmark: BenchmarkFixture, quantize: Quantize) -> None:
    measure(benchmark, quantize, "per_channel")


@pytest.mark.benchmark(group="fake quantize 1024x4096, groups of 64")
@pytest.mark.parametrize("quantize", [by_ste, by_masked_ste, by_lsq])
def test_per_group(benchmark: BenchmarkFixture, quantize: Quantize) -> None:
    measure(benchmark, quantize, {"per_group": 64})

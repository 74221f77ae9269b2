"""AdaRound on second moments, beside AdaRound on mini-batches of the inputs, at the same layer error.

A step on B tokens is two products (output and gradient) of rows x n with n x B, 4 B rows n FLOP, and its gradient is
noisy. A step on the moments is one product of rows x n with n x n, 2 rows n^2 FLOP, and its gradient is that of all
tokens. So the moments are cheaper a step where n < 2 B, and need fewer steps. At n = rows = 128 a step is 4 MFLOP,
below 0.1 ms: a dozen elementwise operations and Adam, on 64 KiB each, weigh more than that. The moments themselves cost
2 tokens n^2 = 0.27 GFLOP once, which is counted in.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from qbench.methods.adaround import AdaRound
from qbench.methods.adaround_solver import beta_at, learn_rounding
from qbench.methods.sequential import Gram
from qbench.quant.affine import AffineGrid, dequantize, fake_quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

ROWS, COLUMNS, TOKENS, BATCH = 128, 128, 8192, 256
# Both have to bring rounding's own error down to this share of it.
REACHED = 0.65


def options(iterations: int, learning_rate: float) -> AdaRound:
    return AdaRound(
        name="adaround", iterations=iterations, learning_rate=learning_rate, regularization=10.0, schedule="cosine"
    )


def layer() -> tuple[Tensor, AffineGrid, Tensor]:
    """Return weight, grid and inputs."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, COLUMNS, generator=generator)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator) / COLUMNS**0.5
    inputs = torch.randn(TOKENS, COLUMNS, generator=generator) @ mixing
    return weight, choose_grid(weight, AbsMax(name="absmax"), 3), inputs


def on_moments(weight: Tensor, grid: AffineGrid, inputs: Tensor) -> Tensor:
    hessian = inputs.T @ inputs / len(inputs)
    return learn_rounding(weight, grid, Gram(hessian, hessian, hessian), options(200, 0.05))[0]


def on_mini_batches(weight: Tensor, grid: AffineGrid, inputs: Tensor) -> Tensor:
    asked = options(1000, 0.02)
    generator = torch.Generator().manual_seed(0)
    scale, zero_point = grid.by_column(COLUMNS)
    low, high = grid.levels.quant_min - zero_point, grid.levels.quant_max - zero_point
    floor = (weight / scale).floor()
    fraction = (weight / scale - floor).clamp(1e-4, 1 - 1e-4)
    v = torch.logit((fraction + 0.1) / 1.2).requires_grad_()
    unit = (inputs @ (weight - fake_quantize(weight, grid)).T).square().sum() / TOKENS / weight.numel()
    optimizer = torch.optim.Adam([v], lr=asked.learning_rate, fused=True)
    for iteration in range(asked.iterations):
        x = inputs[torch.randint(0, TOKENS, (BATCH,), generator=generator)]
        h = (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1)
        soft = scale * torch.minimum(torch.maximum(floor + h, low), high)
        loss = (x @ (soft - weight).T).square().sum() / BATCH / unit
        beta = beta_at(iteration, asked)
        if beta is not None:
            loss = loss + asked.regularization * (1 - (2 * h - 1).abs() ** beta).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    h = (torch.sigmoid(v.detach()) * 1.2 - 0.1).clamp(0, 1)
    return torch.minimum(torch.maximum(floor + (h >= 0.5), low), high) + zero_point


@pytest.mark.benchmark(group="adaround layer 128x128, 8192 tokens")
@pytest.mark.parametrize("solve", [on_mini_batches, on_moments])
def test_to_the_same_error(benchmark: BenchmarkFixture, solve: Callable[[Tensor, AffineGrid, Tensor], Tensor]) -> None:
    weight, grid, inputs = layer()
    codes = benchmark.pedantic(solve, args=(weight, grid, inputs), rounds=3, warmup_rounds=1)
    error = (inputs @ (weight - dequantize(codes, grid)).T).square().sum()
    share = float(error / (inputs @ (weight - fake_quantize(weight, grid)).T).square().sum())
    benchmark.extra_info["error relative to rounding"] = share
    assert share < REACHED

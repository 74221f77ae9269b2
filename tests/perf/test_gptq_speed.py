"""One GPTQ layer with its factor given, beside the plain loop that updates all remaining columns at each column.

Both do rows x n^2 multiply-adds for the updates: 2.1 GFLOP at 1024 x 1024. The plain loop reads and writes what remains
of the matrix at each column, 4 x rows x n^2 bytes: 4.3 GB, or 0.4 s at 10 GB/s. Blocks of B columns bring that to
4 x rows x n x B bytes inside the blocks, which stay in a cache (rows x B x 4 = 512 KiB), and leave the rest to a matrix
product, which is bound by arithmetic: 0.04 s at 50 GFLOP/s. What remains is about ten small operations a column,
some 5 us each: 0.05 s for 1024 columns.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from qbench.methods.gptq_solver import gptq_codes, inverse_factor
from qbench.quant.affine import AffineGrid
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

both_sizes = pytest.mark.parametrize("columns", [256, 1024])


def layer(columns: int) -> tuple[Tensor, AffineGrid, Tensor]:
    """Return weight, grid and the factor of the inverse Hessian."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(2 * columns, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    factor = inverse_factor(inputs.T @ inputs / len(inputs), 0.01)
    assert factor is not None
    return weight, choose_grid(weight, AbsMax(name="absmax"), 4), factor.upper


def column_by_column(weight: Tensor, grid: AffineGrid, upper: Tensor) -> Tensor:
    weight, (scale, zero_point) = weight.clone(), grid.by_column(weight.shape[1])
    codes = torch.empty_like(weight)
    low, high = grid.levels.quant_min, grid.levels.quant_max
    for i in range(weight.shape[1]):
        w = weight[:, i : i + 1]
        code = (torch.round(w / scale) + zero_point).clamp(low, high)
        codes[:, i : i + 1] = code
        error = (w - (code - zero_point) * scale) / upper[i, i]
        weight[:, i + 1 :] -= error * upper[i : i + 1, i + 1 :]
    return codes


@pytest.mark.benchmark(group="gptq layer")
@both_sizes
def test_reference(benchmark: BenchmarkFixture, columns: int) -> None:
    benchmark.group += f", {columns} inputs"
    benchmark.pedantic(column_by_column, args=layer(columns), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="gptq layer")
@both_sizes
def test_ours(benchmark: BenchmarkFixture, columns: int) -> None:
    benchmark.group += f", {columns} inputs"
    weight, grid, upper = layer(columns)
    codes = benchmark.pedantic(gptq_codes, args=(weight, grid, upper, 128), rounds=5, warmup_rounds=1)
    differing = (codes != column_by_column(weight, grid, upper)).float().mean()
    # Sums in another order put a few weights on the other side of a tie, and those that follow in the row with them.
    assert differing < 0.02

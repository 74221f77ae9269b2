"""GPTQ's solve of one layer with its Hessian given, beside the published loop and beside the plainest one.

All do ``rows * n^2`` FLOP for what columns pass on, 8.6 GFLOP at 2048 x 2048. The published code (Algorithm 1 with lazy
batches of 128 columns) also needs a Cholesky factor, an inverse and a second factor, ``4/3 n^3`` FLOP; from the factor
of the reversed Hessian it is ``n^3 / 3``. At 80 GFLOP/s that is 0.11 s for the products and 0.04 against 0.15 s for the
factors. What remains is some ten small operations a column, 2 us each, and a matrix-vector product of up to 128 x rows:
0.06 s for 2048 columns. The plainest loop updates everything to the right at each column, ``4 rows n^2`` bytes read and
written: 34 GB at 2048, or 2 to 3 s.

A whole stage also measures output power and the errors of the codes and of rounding to nearest, for the record: three
more products with the triangular factor, ``9/8 rows n^2`` FLOP each.

One thread. The allocator matters: see `test_fake_quantize_speed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from qbench.methods.gptq import GPTQ
from qbench.methods.gptq_scales import StaticScales
from qbench.methods.gptq_solver import feedback, gptq_values
from qbench.methods.gptq_stage import solve_stage
from qbench.methods.problem import TargetLayer
from qbench.methods.stage import Gram, Stage
from qbench.quant.block_grid import BlockGrid, stack_rows
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

RULE = AbsMax(name="absmax")
# Rows and columns; what is to be reached, as a share of the published loop's and of the plain loop's time.
SIZES = {256: (256, 0.8, 0.8), 1024: (1024, 0.6, 0.3), 2048: (2048, 0.6, 0.2), 4096: (1024, 0.7, 0.2)}
ROUNDS = {256: 20, 1024: 7, 2048: 5, 4096: 2}


def layer(columns: int) -> tuple[Tensor, BlockGrid, Tensor]:
    """Return weight, grid and Hessian."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(SIZES[columns][0], columns, generator=generator)
    inputs = torch.randn(2 * columns, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return weight, choose_grid(weight, RULE, 4), inputs.T @ inputs / len(inputs)


def inverse_factor(hessian: Tensor) -> Tensor:
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def as_published(weight: Tensor, grid: BlockGrid, hessian: Tensor) -> Tensor:
    """Return codes by Algorithm 1 with lazy batch updates, written out; columns as they stand."""
    upper, weight, codes = inverse_factor(hessian), weight.clone(), torch.empty_like(weight)
    scale, zero_point, levels = grid.scale[:, 0], grid.zero_point[:, 0], grid.levels
    for start in range(0, weight.shape[1], 128):
        end = min(start + 128, weight.shape[1])
        block, within = weight[:, start:end].clone(), upper[start:end, start:end]
        errors = torch.empty_like(block)
        for i in range(end - start):
            w = block[:, i]
            code = (torch.round(w / scale) + zero_point).clamp(levels.quant_min, levels.quant_max)
            codes[:, start + i] = code
            errors[:, i] = (w - (code - zero_point) * scale) / within[i, i]
            block[:, i:] -= errors[:, i, None] @ within[None, i, i:]  # as a product: the published code's way, and fast
        weight[:, end:] -= errors @ upper[start:end, end:]
    return codes


def column_by_column(weight: Tensor, grid: BlockGrid, hessian: Tensor) -> Tensor:
    """Return codes by the plainest loop: every column updates all to its right."""
    upper, weight, codes = inverse_factor(hessian), weight.clone(), torch.empty_like(weight)
    scale, zero_point, levels = grid.scale[:, 0], grid.zero_point[:, 0], grid.levels
    for i in range(weight.shape[1]):
        w = weight[:, i]
        code = (torch.round(w / scale) + zero_point).clamp(levels.quant_min, levels.quant_max)
        codes[:, i] = code
        error = (w - (code - zero_point) * scale) / upper[i, i]
        weight[:, i + 1 :] -= error[:, None] * upper[None, i, i + 1 :]
    return codes


def ours(weight: Tensor, grid: BlockGrid, hessian: Tensor) -> Tensor:
    """Return codes by the solver alone."""
    scales = StaticScales(stack_rows([grid], [len(weight)]), torch.arange(weight.shape[1])[None], 128)
    weights = feedback(hessian[None], 0.01).weights
    values = gptq_values(weight.T[None].contiguous(), scales, weights, scales.widths)
    return scales.grid.codes(values)[0].T.contiguous()


def whole_stage(weight: Tensor, grid: BlockGrid, hessian: Tensor, **changed: object) -> Tensor:
    """Return codes by a whole stage, errors for the record included."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight
    stage = Stage(((TargetLayer("one", module, grid, RULE),),), Gram(*[hessian[None]] * 3))
    options = GPTQ.model_validate({"name": "gptq", "act_order": False, **changed})
    return solve_stage(stage, options)["one"].codes


def seconds(solve: Callable[..., Tensor], *given: Tensor | BlockGrid) -> float:
    started = time.perf_counter()
    solve(*given)
    return time.perf_counter() - started


def error(weight: Tensor, codes: Tensor, grid: BlockGrid, hessian: Tensor) -> float:
    difference = weight - (codes - grid.zero_point) * grid.scale
    return float(((difference @ hessian) * difference).sum())


@pytest.mark.benchmark(group="gptq layer")
@pytest.mark.parametrize("columns", SIZES)
def test_solve(benchmark: BenchmarkFixture, columns: int) -> None:
    given, (_, published_share, plain_share) = layer(columns), SIZES[columns]
    benchmark.group += f", {columns} inputs"
    # Interleaved: what else the machine does, it does to all three.
    published, plain, stage = [], [], []

    def setup() -> tuple[tuple[Tensor, BlockGrid, Tensor], dict[str, object]]:
        published.append(seconds(as_published, *given))
        stage.append(seconds(whole_stage, *given))
        if not plain and columns <= 2048:  # a minute at 4096
            plain.append(seconds(column_by_column, *given))
        return given, {}

    codes = benchmark.pedantic(ours, setup=setup, rounds=ROUNDS[columns], warmup_rounds=1)
    least = benchmark.stats.stats.min
    benchmark.extra_info["ratio to the published loop"] = least / min(published)
    if plain:
        benchmark.extra_info["ratio to the plain loop"] = least / min(plain)
    benchmark.extra_info["whole stage, ratio to the published loop"] = min(stage) / min(published)
    rows, n = given[0].shape
    flop = rows * n**2 + n**3 / 3
    benchmark.extra_info["GFLOP/s"] = flop / least / 1e9
    # Sums in another order put a few weights on the other side of a tie, and those that follow in the row with them.
    theirs = as_published(*given)
    assert (codes != theirs).float().mean() < 0.02
    assert error(given[0], codes, *given[1:]) < 1.001 * error(given[0], theirs, *given[1:])
    assert least < published_share * min(published)
    assert not plain or least < plain_share * min(plain)


@pytest.mark.benchmark(group="gptq layer, 1024 inputs, with coordinate descent")
def test_coordinate_descent(benchmark: BenchmarkFixture) -> None:
    given = layer(1024)
    plain: list[float] = []

    def setup() -> tuple[tuple[Tensor, BlockGrid, Tensor], dict[str, object]]:
        plain.append(seconds(whole_stage, *given))
        return given, {"cd_sweeps": 5}

    codes = benchmark.pedantic(whole_stage, setup=setup, rounds=3, warmup_rounds=1)
    gain = 1 - error(given[0], codes, *given[1:]) / error(given[0], ours(*given), *given[1:])
    benchmark.extra_info["ratio to gptq"] = benchmark.stats.stats.min / min(plain)
    benchmark.extra_info["layer error taken away"] = gain
    assert gain > 0.1

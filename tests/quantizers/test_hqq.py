"""Half-quadratic splitting against the two steps of its iteration, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from qbench.quant.block_grid import BlockGrid, fake_quantize
from qbench.quant.grid import IntegerGrid
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.hqq import HalfQuadratic
from qbench.quantizers.layout import choose_grid

RULE = HalfQuadratic(name="hqq")


def heavy_tailed(rows: int = 24, columns: int = 64) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) ** 3


def by_numpy(
    row: NDArray[np.float64], bits: int, *, p: float = 0.7, beta: float = 10, kappa: float = 1.01, iterations: int = 20
) -> tuple[float, float]:
    """Return scale and zero point of one row; the first zero point that is worse ends the search."""
    largest = 2**bits - 1
    scale = (row.max() - row.min()) / largest
    zero, kept, least = -row.min() / scale, 0.0, np.inf
    for _ in range(iterations + 1):
        code = np.clip(np.round(row / scale + zero), 0, largest)
        difference = row - scale * (code - zero)
        error = (np.abs(difference) ** p).sum()
        if error >= least:
            break
        kept, least = zero, error
        with np.errstate(divide="ignore"):
            shrunk = np.sign(difference) * np.maximum(np.abs(difference) - np.abs(difference) ** (p - 1) / beta, 0)
        zero = (code - (row - shrunk) / scale).mean()
        beta *= kappa
    return scale, kept


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    "options", [{}, {"p": 1.0}, {"beta": 1.0, "kappa": 1.5}, {"iterations": 2}, {"p": 0.5, "beta": 100.0}], ids=str
)
def test_the_iteration_is_the_published_one(bits: int, options: dict[str, float]) -> None:
    blocks, levels = heavy_tailed(), IntegerGrid(bits, symmetric=False, real_zero_point=True)
    found = HalfQuadratic.model_validate({"name": "hqq", **options}).choose_qparams(blocks, levels)
    expected = [by_numpy(row, bits, **options) for row in blocks.double().numpy()]  # type: ignore[arg-type]
    scale, zero = (torch.tensor(part).float()[:, None] for part in zip(*expected, strict=True))
    torch.testing.assert_close(found.scale, scale)
    # Rounding may decide that an error falls no longer, or still does.
    same = (found.zero_points() - zero).abs() < 1e-3
    assert same.float().mean() > 0.8


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.integers(1, 8), st.sampled_from([0.7, 1.0])
)
def test_the_error_is_never_above_that_of_the_full_range(row: list[float], bits: int, p: float) -> None:
    blocks = torch.tensor([row])
    grid = choose_grid(blocks, HalfQuadratic(name="hqq", p=p), bits)
    full = grid.zero_point if blocks.amax() == blocks.amin() else -blocks.amin() / grid.scale
    errors = [
        (fake_quantize(blocks, BlockGrid(grid.levels, grid.scale, zero.reshape(1, 1), len(row))) - blocks)
        .abs()
        .double()
        .pow(p)
        .sum()
        for zero in (grid.zero_point, full)
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-30


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_real_zero_point_pays(bits: int) -> None:
    blocks = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) / 50
    rules = (RULE, AbsMax(name="absmax", symmetric=False))
    errors = [(fake_quantize(blocks, choose_grid(blocks, rule, bits)) - blocks).abs().pow(0.7).sum() for rule in rules]
    assert errors[0] < 0.97 * errors[1]


@given(st.floats(-100, 100, width=32), st.integers(1, 8))
def test_a_constant_block_is_kept(value: float, bits: int) -> None:
    blocks = torch.full((1, 5), value)
    quantized = fake_quantize(blocks, choose_grid(blocks, RULE, bits))
    torch.testing.assert_close(quantized, blocks, rtol=1e-5, atol=1e-30)


def test_a_narrow_block_far_from_zero_keeps_its_digits() -> None:
    blocks = 100 + torch.rand(1, 50, generator=torch.Generator().manual_seed(0))
    grid = choose_grid(blocks, RULE, 4)
    assert (fake_quantize(blocks, grid) - blocks).abs().max() < 1.1 * float(grid.scale)
    assert float(grid.scale) < 0.07


def test_blocks_are_chosen_for_one_by_one() -> None:
    blocks = heavy_tailed()
    together = choose_grid(blocks, RULE, 2)
    apart = [choose_grid(row[None], RULE, 2).zero_point for row in blocks]
    torch.testing.assert_close(together.zero_point, torch.cat(apart))


def test_a_zero_point_is_stored_in_float32() -> None:
    assert choose_grid(heavy_tailed(4, 64), RULE, 2).stored_bits(4, 64) == 2 * 256 + 4 * (32 + 32)

"""The range rules against a search written out from GPTQ's published code."""

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
from qbench.quant.qparams import QParams
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.mse import MeanSquaredError

blocks_of_rows = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=width, max_size=width), min_size=1, max_size=4
    )
)
every_grid = st.builds(IntegerGrid, bits=st.integers(2, 8), symmetric=st.booleans())
bits_and_symmetry = pytest.mark.parametrize(
    "levels", [IntegerGrid(bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (True, False)], ids=str
)


def heavy_tailed(rows: int = 24, width: int = 48) -> Tensor:
    """Return blocks with outliers, of which some rows are one-sided and one is zero."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(rows, width, generator=generator) ** 3
    blocks[1], blocks[2], blocks[3] = blocks[1].abs(), -blocks[2].abs(), 0.0
    return blocks


def errors(blocks: Tensor, found: QParams, levels: IntegerGrid, p: float) -> NDArray[np.float64]:
    grid = BlockGrid(levels, found.scale, found.zero_point, blocks.shape[1])
    difference = fake_quantize(blocks, grid).numpy().astype(np.float64) - blocks.numpy().astype(np.float64)
    return (np.abs(difference) ** p).sum(axis=1)


def published_search(
    row: NDArray[np.float64], levels: IntegerGrid, *, norm: float, grid: int, steps: int
) -> tuple[float, float]:
    """Return the best scale and its error by `find_params` of GPTQ's reference code, in float64.

    `grid` and `steps` are its `grid` and `int(maxshrink * grid)`. Only the one-sided symmetric row differs: there the
    published code clips the upper half.
    """
    largest_code = 2**levels.bits - 1
    low, high = min(row.min(), 0.0), max(row.max(), 0.0)
    if levels.symmetric:
        high = max(abs(low), high)
        low = -high
    if low == 0 and high == 0:
        low, high = -1.0, 1.0
    best, best_scale = np.inf, np.nan
    for step in range(steps):
        share = 1 - step / grid
        scale = (share * high - share * low) / largest_code
        zero = (largest_code + 1) / 2 if levels.symmetric else np.round(-share * low / scale)
        quantized = scale * (np.clip(np.round(row / scale) + zero, 0, largest_code) - zero)
        error = (np.abs(quantized - row) ** norm).sum()
        if error < best:
            best, best_scale = error, scale
    return best_scale, best


@bits_and_symmetry
@pytest.mark.parametrize(
    ("options", "search"),
    [
        ({"p": 2.4}, {"norm": 2.4, "grid": 100, "steps": 80}),
        ({}, {"norm": 2.0, "grid": 100, "steps": 80}),
        ({"p": 1.0, "candidates": 10, "smallest": 0.5}, {"norm": 1.0, "grid": 20, "steps": 10}),
        ({"candidates": 1}, {"norm": 2.0, "grid": 100, "steps": 1}),
    ],
    ids=["published", "default", "coarse", "full range"],
)
def test_mse_is_the_published_search(levels: IntegerGrid, options: dict[str, float], search: dict[str, float]) -> None:
    blocks = heavy_tailed()
    found = MeanSquaredError.model_validate({"name": "mse", **options}).choose_qparams(blocks, levels)
    reached = errors(blocks, found, levels, search["norm"])
    same = 0
    for index, row in enumerate(blocks.numpy().astype(np.float64)):
        scale, least = published_search(row, levels, **search)
        # Where two ranges are equally good, rounding may decide for the other one.
        assert reached[index] == pytest.approx(least, rel=1e-4, abs=1e-9)
        same += found.scale[index].item() == pytest.approx(scale, rel=1e-5)
    assert same >= len(blocks) - 2


@given(blocks_of_rows, every_grid, st.sampled_from([1.0, 2.0, 2.4]), st.integers(1, 12), st.floats(0.05, 0.95))
def test_mse_is_never_worse_than_absmax(
    rows: list[list[float]], levels: IntegerGrid, p: float, candidates: int, smallest: float
) -> None:
    blocks = torch.tensor(rows)
    shrunk = MeanSquaredError(name="mse", p=p, candidates=candidates, smallest=smallest)
    of_mse = errors(blocks, shrunk.choose_qparams(blocks, levels), levels, p)
    of_absmax = errors(blocks, AbsMax(name="absmax").choose_qparams(blocks, levels), levels, p)
    assert (of_mse <= of_absmax * (1 + 1e-5) + 1e-30).all()


def test_mse_shrinks_the_range_where_it_pays() -> None:
    blocks, levels = heavy_tailed(), IntegerGrid(2, symmetric=True)
    of_mse = errors(blocks, MeanSquaredError(name="mse").choose_qparams(blocks, levels), levels, 2.0)
    of_absmax = errors(blocks, AbsMax(name="absmax").choose_qparams(blocks, levels), levels, 2.0)
    assert (of_mse < 0.7 * of_absmax).sum() > 8


def test_of_equally_good_ranges_the_wider_one_is_kept() -> None:
    # At 2 bits -3 becomes -4 on the full range (scale 2) and -2 on half of it (scale 1).
    halved = MeanSquaredError(name="mse", candidates=2, smallest=1e-12)
    found = halved.choose_qparams(torch.tensor([[-3.0]]), IntegerGrid(2, symmetric=True))
    assert found.scale.item() == 2.0


@given(blocks_of_rows, st.integers(2, 8))
def test_absmax_clips_nothing(rows: list[list[float]], bits: int) -> None:
    blocks, levels = torch.tensor(rows), IntegerGrid(bits, symmetric=False)
    found = AbsMax(name="absmax").choose_qparams(blocks, levels)
    position = (blocks / found.scale).double() + found.zero_point
    # The zero point is an integer, so the range may lie up to half a step beside the levels.
    assert (position >= levels.quant_min - 0.5 - 1e-4).all() and (position <= levels.quant_max + 0.5 + 1e-4).all()


@pytest.mark.parametrize("rule", [AbsMax(name="absmax"), MeanSquaredError(name="mse")], ids=lambda rule: rule.name)
@bits_and_symmetry
def test_a_rule_scales_with_the_weights(rule: AbsMax, levels: IntegerGrid) -> None:
    blocks = heavy_tailed()
    one, eight = rule.choose_qparams(blocks, levels), rule.choose_qparams(blocks * 8, levels)
    alive = blocks.abs().amax(dim=1) > 0
    assert torch.equal(eight.scale[alive], one.scale[alive] * 8)
    assert torch.equal(eight.zero_point, one.zero_point)

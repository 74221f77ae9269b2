"""The percentile rule against numpy's percentiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.percentile import Percentile

rows = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=width, max_size=width), min_size=1, max_size=4
    )
)
ANY, SIGNED = IntegerGrid(4, symmetric=False), IntegerGrid(4, symmetric=True)


def drawn(columns: int) -> Tensor:
    return torch.randn(5, columns, generator=torch.Generator().manual_seed(columns)) ** 3


@pytest.mark.parametrize("q", [60.0, 90.0, 99.0, 99.9])
@pytest.mark.parametrize("columns", [2, 17, 1000])
def test_ends_are_numpy_s_percentiles(q: float, columns: int) -> None:
    blocks = drawn(columns).sub(0.1)
    found = Percentile(name="percentile", q=q).choose_qparams(blocks, SIGNED)
    expected = np.percentile(blocks.abs().double().numpy(), q, axis=1, keepdims=True)
    torch.testing.assert_close(found.scale, torch.tensor(expected / 7.5).float())

    found = Percentile(name="percentile", q=q, symmetric=False).choose_qparams(blocks, ANY)
    low, high = (np.percentile(blocks.double().numpy(), end, axis=1, keepdims=True) for end in (100 - q, q))
    smallest, largest = (getattr(blocks, end)(dim=1, keepdim=True).double().numpy() for end in ("amin", "amax"))
    # An end on the far side of 0 leaves the block's own.
    ends = QParams.from_range(
        torch.tensor(np.where(low < 0, low, smallest)), torch.tensor(np.where(high > 0, high, largest)), ANY
    )
    torch.testing.assert_close(found.scale, ends.scale.float())
    assert torch.equal(found.zero_points(), ends.zero_points().float())


@given(rows, st.integers(1, 8), st.booleans())
def test_the_hundredth_percentile_is_the_full_range(drawn: list[list[float]], bits: int, symmetric: bool) -> None:
    blocks, grid = torch.tensor(drawn), IntegerGrid(bits, symmetric)
    found = Percentile(name="percentile", q=100, symmetric=symmetric).choose_qparams(blocks, grid)
    expected = AbsMax(name="absmax", symmetric=symmetric).choose_qparams(blocks, grid)
    assert torch.equal(found.scale, expected.scale)
    assert torch.equal(found.zero_points(), expected.zero_points())


@given(rows, st.floats(50.1, 100))
def test_a_range_is_within_the_full_one(drawn: list[list[float]], q: float) -> None:
    blocks = torch.tensor(drawn)
    found = Percentile(name="percentile", q=q).choose_qparams(blocks, SIGNED)
    assert (found.scale <= AbsMax(name="absmax").choose_qparams(blocks, SIGNED).scale * (1 + 1e-6)).all()


def test_where_most_weights_are_zero_the_range_is_not_clipped_away() -> None:
    blocks = torch.zeros(2, 5000)
    blocks[0, 3], blocks[1, 7] = 4.0, -4.0
    found = Percentile(name="percentile").choose_qparams(blocks, SIGNED)
    torch.testing.assert_close(found.scale, torch.full((2, 1), 4 / 7.5))


def test_more_weights_than_torch_s_quantile_takes() -> None:
    blocks = torch.zeros(1, 2**24 + 8)
    blocks[0, : 2**15] = 1.0
    found = Percentile(name="percentile", q=99.9).choose_qparams(blocks, SIGNED)
    assert found.scale.item() == pytest.approx(2 / 15)

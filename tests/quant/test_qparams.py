"""Scale and zero point of a range, against GPTQ's reference formula and at the edges of float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize
from qbench.quant.grid import Convention, IntegerGrid
from qbench.quant.qparams import QParams

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

weights = st.floats(-1e6, 1e6, width=32)
rows = st.lists(weights, min_size=1, max_size=12)
every_grid = st.builds(IntegerGrid, bits=st.integers(2, 8), symmetric=st.booleans())


def grid_of(row: Tensor, levels: IntegerGrid) -> BlockGrid:
    block = row.reshape(1, -1)
    low, high = block.aminmax(dim=1, keepdim=True)
    found = QParams.from_range(low, high, levels)
    assert found.scale.shape == found.zero_point.shape == (1, 1)
    return BlockGrid(levels, found.scale, found.zero_point, block.shape[1])


def reference(row: list[float], bits: int, symmetric: bool) -> tuple[float, float]:
    """Return scale and unrounded zero point as GPTQ's published `Quantizer.find_params` has them, in float64."""
    low, high = min(0.0, *row), max(0.0, *row)
    if symmetric:
        high = max(-low, high)
        low = -high
    if low == high == 0.0:
        low, high = -1.0, 1.0
    scale = (high - low) / (2**bits - 1)
    return scale, -low / scale


@given(rows, every_grid)
def test_agrees_with_the_published_formula(row: list[float], levels: IntegerGrid) -> None:
    found = grid_of(torch.tensor(row), levels)
    scale, zero_point = reference(row, levels.bits, levels.symmetric)
    if scale < 2 * SMALLEST_NORMAL:
        assert SMALLEST_NORMAL <= found.scale.item() < 4 * SMALLEST_NORMAL
        return
    assert found.scale.item() == pytest.approx(scale, rel=4e-7)
    if levels.symmetric:
        assert found.zero_point.item() == 0
    else:
        assert found.zero_point.item() == round(found.zero_point.item())
        # The nearest integer; next to a tie either neighbour.
        assert abs(found.zero_point.item() - zero_point) <= 0.5 + 1e-4


@given(rows, every_grid)
def test_zero_is_a_level(row: list[float], levels: IntegerGrid) -> None:
    found = grid_of(torch.tensor([*row, 0.0]), levels)
    assert levels.quant_min <= found.zero_point.item() <= levels.quant_max
    assert fake_quantize(torch.zeros(1, len(row) + 1), found).count_nonzero() == 0


@given(rows, st.integers(2, 8))
def test_an_asymmetric_range_is_reached_at_both_ends(row: list[float], bits: int) -> None:
    weight = torch.tensor([row])
    found = grid_of(weight, IntegerGrid(bits, symmetric=False))
    assert ((fake_quantize(weight, found) - weight).abs() <= found.scale * (0.5 + 1e-4)).all()


@given(rows, st.integers(2, 8))
def test_a_symmetric_range_loses_half_a_step_at_its_upper_end_at_most(row: list[float], bits: int) -> None:
    weight = torch.tensor([row])
    found = grid_of(weight, IntegerGrid(bits, symmetric=True))
    assert ((fake_quantize(weight, found) - weight).abs() <= found.scale * (0.5 + 1e-4)).all()


def test_the_symmetric_levels_at_two_bits() -> None:
    levels = IntegerGrid(2, symmetric=True)
    found = QParams.from_range(torch.tensor([[-1.0]]), torch.tensor([[1.0]]), levels)
    values = found.scale * torch.arange(levels.quant_min, levels.quant_max + 1)
    torch.testing.assert_close(values, torch.tensor([[-4 / 3, -2 / 3, 0, 2 / 3]]))


def test_a_symmetric_row_without_negatives_keeps_its_upper_half() -> None:
    row = torch.tensor([[0.1, 0.5, 1.0]])
    expected = torch.tensor([[1.0, 4.0, 7.0]]) * 2 / 15  # GPTQ's reference code gives 0.133, 0.467, 0.467
    torch.testing.assert_close(fake_quantize(row, grid_of(row, IntegerGrid(4, symmetric=True))), expected)
    torch.testing.assert_close(fake_quantize(-row, grid_of(-row, IntegerGrid(4, symmetric=True))), -expected - 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_asymmetric_one_sided_row_has_all_levels_on_its_side(sign: int) -> None:
    row = sign * torch.tensor([[0.2, 0.6, 1.0]])
    found = grid_of(row, IntegerGrid(4, symmetric=False))
    assert found.scale.item() == pytest.approx(1 / 15)
    assert found.zero_point.item() == (0 if sign == 1 else 15)
    torch.testing.assert_close(fake_quantize(row, found), row)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_all_zero_block_gets_the_range_of_minus_one_to_one(bits: int) -> None:
    for symmetric in (True, False):
        found = grid_of(torch.zeros(5), IntegerGrid(bits, symmetric))
        assert found.scale.item() == pytest.approx(2 / (2**bits - 1))
        assert fake_quantize(torch.zeros(1, 5), found).count_nonzero() == 0


@given(weights.filter(lambda value: abs(value) > 1e-30), st.integers(2, 8))
def test_a_constant_block_is_exact_on_an_asymmetric_grid(value: float, bits: int) -> None:
    row = torch.full((1, 4), value)
    torch.testing.assert_close(fake_quantize(row, grid_of(row, IntegerGrid(bits, symmetric=False))), row)


def test_blocks_do_not_see_each_other() -> None:
    blocks = torch.tensor([[0.0, 0.0], [-3.0, 1.0], [2.0, 5.0]])
    for levels in (IntegerGrid(3, symmetric=True), IntegerGrid(3, symmetric=False)):
        together = QParams.from_range(*blocks.aminmax(dim=1, keepdim=True), levels)
        apart = [grid_of(block, levels) for block in blocks]
        assert together.scale.flatten().tolist() == [one.scale.item() for one in apart]
        assert together.zero_point.flatten().tolist() == [one.zero_point.item() for one in apart]


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-38, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_tiny_and_huge_ranges_stay_finite(size: float, bits: int, symmetric: bool) -> None:
    row = torch.tensor([[-size, size / 3, size]])
    found = grid_of(row, IntegerGrid(bits, symmetric))
    assert SMALLEST_NORMAL <= found.scale.item() < math.inf
    error = (fake_quantize(row, found) - row).abs()
    assert (error <= found.scale * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_largest_float_does_not_overflow_the_scale(symmetric: bool) -> None:
    largest = torch.tensor([[torch.finfo(torch.float32).max]])
    assert torch.isfinite(QParams.from_range(-largest, largest, IntegerGrid(2, symmetric)).scale).all()


@pytest.mark.parametrize(
    ("convention", "row", "expected"),
    [
        ("full_range", [1.0, -0.5], [-4 / 3, -2 / 3, 0.0, 2 / 3]),
        ("full_range", [-1.0, 0.5], [-4 / 3, -2 / 3, 0.0, 2 / 3]),
        ("narrow_range", [1.0, -0.5], [-1.0, 0.0, 1.0]),
        ("larger_side", [1.0, -0.5], [-0.5, 0.0, 0.5, 1.0]),
        ("larger_side", [-1.0, 0.5], [-1.0, -0.5, 0.0, 0.5]),
        ("larger_side", [-1.0, 1.0], [-1.0, -0.5, 0.0, 0.5]),
    ],
)
def test_the_levels_of_each_symmetric_convention_at_two_bits(
    convention: Convention, row: list[float], expected: list[float]
) -> None:
    levels = IntegerGrid(2, symmetric=True, convention=convention)
    grid = grid_of(torch.tensor(row), levels)
    codes = torch.arange(levels.quant_min, levels.quant_max + 1).float()[None]
    assert dequantize(codes, grid).flatten().tolist() == pytest.approx(expected)


@given(rows, st.integers(2, 8), st.sampled_from(["narrow_range", "larger_side"]))
def test_the_largest_magnitude_is_a_level_but_for_a_full_range(row: list[float], bits: int, convention: str) -> None:
    weight = torch.tensor([row])
    levels = IntegerGrid(bits, symmetric=True, convention=convention)  # type: ignore[arg-type]
    found = grid_of(weight, levels)
    largest = weight.abs().argmax()
    assert abs(fake_quantize(weight, found) - weight)[0, largest] <= 1e-6 * weight.abs().max() + 1e-30
    assert ((fake_quantize(weight, found) - weight).abs() <= found.scale * (1 + 1e-4)).all()


@given(rows, st.integers(2, 8))
def test_min_max_is_what_torch_fake_quantizes(row: list[float], bits: int) -> None:
    """The asymmetric grid on which six toolkits agree: same formula, checked on torch's own operator."""
    weight = torch.tensor([row])
    found = grid_of(weight, IntegerGrid(bits, symmetric=False))
    scale, zero_point = reference(row, bits, False)
    if scale < 2 * SMALLEST_NORMAL or abs(zero_point - round(zero_point)) > 0.499:
        return
    one, zero = torch.tensor([scale]), torch.tensor([round(zero_point)], dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, one, zero, 0, 0, 2**bits - 1)
    ours = fake_quantize(weight, found)
    # torch multiplies with the reciprocal: next to a tie the neighbouring level is as near.
    tie = ((weight / scale - (weight / scale).floor()) - 0.5).abs() < 1e-3
    assert torch.where(tie, 0.0, (ours - theirs).abs() / scale).max() < 1e-3

"""Microscaling: scales by a search over all exponents, formats by torch's own 8-bit types."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.block_grid import fake_quantize
from qbench.quant.scale_format import ScaledE4M3
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def make(name: str, **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


def drawn(rows: int = 8, columns: int = 100) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, columns, generator=generator) * 10 ** torch.randn(rows, 1, generator=generator)


def to_e2m1(value: float) -> float:
    """Round by a search; of two that are as near, the one with an even mantissa."""
    even = {0, 1, 2, 4}
    nearest = min(E2M1, key=lambda number: (abs(abs(value) - number), number not in even))
    return math.copysign(nearest, value)


@given(st.floats(2.0**-120, 2.0**120, width=32))
def test_the_scale_of_mxfp4_is_the_largest_power_that_lays_the_group_on_the_last_exponent(largest: float) -> None:
    group = torch.linspace(-0.9, 1, 32)[None] * torch.tensor(largest)
    group[0, -1] = largest
    found = float(choose_grid(group, make("mxfp4"), 4).scale)
    # 4 is the power of two below 6, the largest number: the quotient must keep that exponent.
    allowed = [2.0**e for e in range(-126, 128) if 4 * 2.0**e <= largest < 8 * 2.0**e]
    assert [found] == allowed


@pytest.mark.parametrize(
    ("bits", "element", "emax"), [(4, "e2m1", 2), (6, "e3m2", 4), (6, "e2m3", 2), (8, "e4m3", 8), (8, "e5m2", 15)]
)
def test_each_element_has_its_largest_exponent(bits: int, element: str, emax: int) -> None:
    weight = drawn()
    grid = choose_grid(weight, make("mx", format=element), bits)
    groups = weight.split(32, dim=1)
    largest = torch.stack([group.abs().amax(dim=1) for group in groups], dim=1)
    assert torch.equal(grid.scale, (largest.double().log2().floor() - emax).exp2().float())
    assert grid.stored_bits(8, 100) == bits * 800 + 8 * 8 * 4


def test_mxfp4_element_by_element() -> None:
    weight = drawn()
    quantized = fake_quantize(weight, choose_grid(weight, make("mxfp4"), 4))
    for row, found in zip(weight.tolist(), quantized.tolist(), strict=True):
        for start in (0, 32, 64, 96):  # the last group has four weights
            group = row[start : start + 32]
            scale = 2.0 ** (math.floor(math.log2(max(map(abs, group)))) - 2)
            assert found[start : start + 32] == [scale * to_e2m1(value / scale) for value in group]


def test_what_is_beyond_the_largest_number_goes_to_it() -> None:
    weight = torch.tensor([[7.9, 6.5, 5.0, -7.9, 0.2, 0.25, 0.75]])
    quantized = fake_quantize(weight, choose_grid(weight, make("mxfp4"), 4))
    assert quantized.tolist() == [[6, 6, 4, -6, 0, 0, 1]]


def test_mx_with_its_defaults_at_four_bits_is_mxfp4() -> None:
    weight = drawn()
    both = [fake_quantize(weight, choose_grid(weight, make(name), 4)) for name in ("mx", "mxfp4")]
    assert torch.equal(*both)


def test_nvfp4_by_torch_s_own_e4m3() -> None:
    weight = drawn()
    grid = choose_grid(weight, make("nvfp4"), 4)
    of_all = weight.abs().max() / 6 / 448
    assert isinstance(grid.scale_format, ScaledE4M3)
    assert grid.scale_format.tensor_scale == pytest.approx(float(of_all))
    groups = weight.split(16, dim=1)
    assert [group.shape[1] for group in groups] == [16] * 6 + [4]
    for index, group in enumerate(groups):
        scale = (group.abs().amax(dim=1, keepdim=True) / 6 / of_all).to(torch.float8_e4m3fn).float() * of_all
        usual = scale > of_all * 2.0**-6
        torch.testing.assert_close(grid.scale[:, index : index + 1][usual], scale[usual])
        expected = [
            [to_e2m1(value / own) * own for value in row]
            for row, own in zip(group.tolist(), scale.flatten().tolist(), strict=True)
        ]
        quantized = fake_quantize(weight, grid)[:, index * 16 : index * 16 + group.shape[1]]
        torch.testing.assert_close(quantized[usual[:, 0]], torch.tensor(expected)[usual[:, 0]])
    assert grid.stored_bits(8, 100) == 4 * 800 + 8 * 8 * 7 + 32


def test_the_largest_scale_of_nvfp4_is_the_largest_of_e4m3() -> None:
    weight = drawn()
    grid = choose_grid(weight, make("nvfp4"), 4)
    torch.testing.assert_close(grid.scale.max(), weight.abs().max() / 6)
    ratios = grid.scale / grid.scale_format.tensor_scale  # type: ignore[attr-defined]
    assert torch.allclose(ratios, ratios.to(torch.float8_e4m3fn).float(), rtol=1e-6)


def test_a_group_of_nothing_does_not_move_the_others() -> None:
    weight = drawn() * 1e-3
    weight[:, 16:32] = 0
    filled = weight.clone()
    filled[:, 16:32] = 1e-9
    grid, other = (choose_grid(one, make("nvfp4"), 4) for one in (weight, filled))
    assert torch.equal(grid.scale[:, 2:], other.scale[:, 2:])
    assert not fake_quantize(weight, grid)[:, 16:32].any()


@pytest.mark.parametrize("name", ["mxfp4", "mx", "nvfp4"])
def test_why_steps_are_not_learned(name: str) -> None:
    assert make(name).fixed_scales is not None
    assert make(name).shares_scale_unit == (name == "nvfp4")

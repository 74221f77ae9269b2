"""The fixed step: what it depends on, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quant.grid import IntegerGrid
from qbench.quantizers.lattice import Lattice
from qbench.quantizers.layout import choose_grid

BITS = range(2, 9)


def make(**options: Any) -> Lattice:
    return Lattice.model_validate({"name": "lattice", **options})


def drawn(rows: int = 5, columns: int = 24) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) ** 3


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", {"per_group": 8}, {"per_block": [2, 8]}])
def test_an_absolute_step_is_the_same_everywhere_at_all_bits(granularity: Any) -> None:
    quantizer = make(step=0.3, unit="absolute", granularity=granularity)
    for bits in BITS:
        grid = choose_grid(drawn(), quantizer, bits)
        assert torch.equal(grid.scale, torch.full_like(grid.scale, 0.3))
        assert not grid.zero_point.any()


def test_a_relative_step_is_a_share_of_each_row_s_root_mean_square() -> None:
    weight = drawn()
    expected = torch.tensor([[0.25 * float(row.square().mean().sqrt())] for row in weight.double()])
    for bits in BITS:
        torch.testing.assert_close(choose_grid(weight, make(step=0.25), bits).scale, expected)


@given(st.floats(0.01, 10), st.integers(0, 23), st.floats(2, 100))
def test_the_largest_weight_does_not_move_an_absolute_step(step: float, place: int, factor: float) -> None:
    weight = drawn()
    quantizer = make(step=step, unit="absolute")
    before = choose_grid(weight, quantizer, 4)
    weight[:, place] *= factor
    assert torch.equal(choose_grid(weight, quantizer, 4).scale, before.scale)


@given(st.floats(-12, 12))
def test_a_relative_step_follows_the_unit_of_the_weights(exponent: float) -> None:
    factor = 10**exponent
    before, after = (choose_grid(drawn() * one, make(), 4) for one in (1.0, factor))
    torch.testing.assert_close(after.scale, before.scale * factor, rtol=1e-5, atol=0)
    assert (quantize(drawn() * factor, after) != quantize(drawn(), before)).float().mean() < 0.01


def test_within_the_codes_no_weight_is_further_than_half_a_step_away() -> None:
    weight = drawn().clamp(-8, 8)
    grid = choose_grid(weight, make(step=0.125, unit="absolute"), 8)
    assert (fake_quantize(weight, grid) - weight).abs().max() <= 0.0625


@pytest.mark.parametrize("bits", BITS)
def test_bits_bound_the_codes(bits: int) -> None:
    weight = torch.tensor([[-1e4, 1e4]])
    grid = choose_grid(weight, make(step=1.0, unit="absolute"), bits)
    assert quantize(weight, grid).tolist() == [[-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1]]
    assert grid.levels == IntegerGrid(bits, symmetric=True)


def test_squares_that_float32_cannot_hold_do_not_matter() -> None:
    for size in (1e-30, 1e30):
        weight = torch.full((2, 8), size)
        torch.testing.assert_close(
            choose_grid(weight, make(), 4).scale, torch.full((2, 1), size / 2), rtol=1e-6, atol=0
        )


def test_a_row_without_weights_has_the_step_itself() -> None:
    weight = torch.zeros(2, 8)
    weight[1] = 1.0
    assert choose_grid(weight, make(step=0.5), 4).scale.tolist() == [[0.5], [0.5]]


@pytest.mark.parametrize("options", [{"step": 0}, {"step": -1.0}, {"step": float("inf")}, {"unit": "largest"}], ids=str)
def test_what_is_no_step_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        make(**options)


def test_label() -> None:
    assert make().label() == "lattice[per_channel]"
    assert make(step=0.173, unit="absolute").label() == "lattice[per_channel,step=0.173,unit=absolute]"

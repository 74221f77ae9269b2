"""Which integer levels a grid has."""

from __future__ import annotations

import pytest

from qbench.quant.grid import IntegerGrid


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_code_of_b_bits_has_two_to_the_b_levels(bits: int, symmetric: bool) -> None:
    levels = IntegerGrid(bits, symmetric)
    assert levels.quant_max - levels.quant_min + 1 == 2**bits
    assert levels.quant_min <= 0 <= levels.quant_max


@pytest.mark.parametrize(
    ("bits", "symmetric", "low", "high"),
    [(2, True, -2, 1), (3, True, -4, 3), (8, True, -128, 127), (2, False, 0, 3), (8, False, 0, 255)],
)
def test_levels_in_numbers(bits: int, symmetric: bool, low: int, high: int) -> None:
    assert (IntegerGrid(bits, symmetric).quant_min, IntegerGrid(bits, symmetric).quant_max) == (low, high)


def test_the_convention_has_a_name() -> None:
    assert IntegerGrid(4, symmetric=True).describe() == "symmetric full_range"
    assert IntegerGrid(4, symmetric=False).describe() == "asymmetric min-max with integer zero point"

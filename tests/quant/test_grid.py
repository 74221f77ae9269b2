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


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_narrow_range_is_the_same_on_both_sides(bits: int) -> None:
    levels = IntegerGrid(bits, symmetric=True, convention="narrow_range")
    assert levels.quant_max == -levels.quant_min == 2 ** (bits - 1) - 1
    assert levels.describe() == "symmetric narrow_range"


@pytest.mark.parametrize(
    ("levels", "zero_points", "stored"),
    [
        (IntegerGrid(3, symmetric=False), [0, 1, 2, 3, 4, 5, 6, 7], 3),
        (IntegerGrid(3, symmetric=True), [0], 0),
        (IntegerGrid(3, symmetric=True, convention="narrow_range"), [0], 0),
        (IntegerGrid(3, symmetric=True, convention="larger_side"), [-1, 0], 1),
    ],
)
def test_zero_points_that_are_allowed_and_the_bits_they_take(
    levels: IntegerGrid, zero_points: list[int], stored: int
) -> None:
    assert list(levels.zero_points) == zero_points
    assert levels.zero_point_bits == stored

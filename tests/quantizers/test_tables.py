"""The level tables against what was published, written out as numbers or by independent formulas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quant.levels import LevelTable
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS

# QLoRA (arXiv:2305.14314), appendix E, in the digits of its code.
NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


def make(name: str, **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


def values(name: str, bits: int, **options: Any) -> tuple[float, ...]:
    levels = make(name, **options).levels(bits)
    assert isinstance(levels, LevelTable)
    assert levels.bits == bits
    return levels.values


def drawn(rows: int = 20, columns: int = 300) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02


def test_nf4_is_the_published_table_to_the_bit() -> None:
    assert torch.equal(torch.tensor(values("nf", 4)), torch.tensor(NF4))


@pytest.mark.parametrize("bits", range(2, 9))
def test_normal_floats_halve_the_normal_distribution(bits: int) -> None:
    """Between neighbours lies the same probability, on each side of its own: the definition, by the error function."""
    levels = values("nf", bits)
    half = 2 ** (bits - 1)
    assert len(levels) == 2**bits and levels[half - 1] == 0 and levels[0] == -1 and levels[-1] == 1
    mean_of_half_steps = (1 / 2 ** (bits + 1) + 1 / (2 ** (bits + 1) - 2)) / 2
    low, high = 0.0, 10.0  # the outermost quantile, by bisection
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(middle / 2**0.5) > mean_of_half_steps else (low, middle)
    shares = [0.5 * (1 + math.erf(low * level / 2**0.5)) for level in levels]
    steps = torch.tensor(shares, dtype=torch.float64).diff()
    for side in (steps[: half - 1], steps[half - 1 :]):
        torch.testing.assert_close(side, side.mean().expand_as(side), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("name", "positive"),
    [
        ("e1m0", [2]),
        ("e1m2", [0.5, 1, 1.5, 2, 2.5, 3, 3.5]),
        ("e2m0", [1, 2, 4]),
        ("e2m1", [0.5, 1, 1.5, 2, 3, 4, 6]),
        ("e3m0", [0.25, 0.5, 1, 2, 4, 8, 16]),
        (
            "e2m3",
            [k / 8 for k in range(1, 16)] + [k / 4 for k in range(8, 16)] + [k / 2 for k in range(8, 16)],
        ),
        (
            "e3m2",
            [k / 16 for k in range(1, 8)] + [m * 2.0**e for e in range(-1, 5) for m in (1, 1.25, 1.5, 1.75)],
        ),
    ],
)
def test_small_formats(name: str, positive: list[float]) -> None:
    levels = values("fp", 1 + int(name[1]) + int(name[3]), format=name)
    assert levels == (*(-value for value in reversed(positive)), 0.0, *positive)


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_8_bit_formats_are_torch_s(name: str) -> None:
    dtype = torch.float8_e4m3fn if name == "e4m3" else torch.float8_e5m2
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype).double()
    finite = numbers[numbers.isfinite()].unique()
    assert values("fp", 8, format=name) == tuple(finite.tolist())


@pytest.mark.parametrize(
    ("name", "bits", "largest"),
    [("e2m1", 4, 6), ("e2m3", 6, 7.5), ("e3m2", 6, 28), ("e4m3", 8, 448), ("e5m2", 8, 57344)],
)
def test_largest_numbers_are_those_of_the_ocp_formats(name: str, bits: int, largest: float) -> None:
    for quantizer in ("fp", "mx"):
        assert max(values(quantizer, bits, format=name)) == -min(values(quantizer, bits, format=name)) == largest


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_rounding_is_that_of_torch_s_8_bit_types(name: str, scale: float) -> None:
    """Ties included: every number, every middle between two, and what lies between."""
    dtype = torch.float8_e4m3fn if name == "e4m3" else torch.float8_e5m2
    numbers = torch.tensor(values("fp", 8, format=name))
    places = torch.cat([numbers, (numbers[1:] + numbers[:-1]) / 2, drawn(1, 5000)[0] * 100])[None]
    # The range of these is that of the format, so that the scale is as given.
    weight = places * scale
    quantized = fake_quantize(weight, choose_grid(weight, make("fp", format=name), 8))
    position = weight / (weight.abs().max() / numbers.max())
    expected = position.to(dtype).float() * (weight.abs().max() / numbers.max())
    assert torch.equal(quantized, expected)


@pytest.mark.parametrize("bits", range(2, 9))
def test_each_number_of_bits_has_a_format(bits: int) -> None:
    defaults = {2: "e1m0", 3: "e2m0", 4: "e2m1", 5: "e2m2", 6: "e3m2", 7: "e3m3", 8: "e4m3"}
    assert values("fp", bits) == values("fp", bits, format=defaults[bits])


@pytest.mark.parametrize("bits", range(2, 8))
def test_powers_of_two(bits: int) -> None:
    levels = values("pot", bits)
    assert len(levels) == 2**bits - 1 and max(levels) == 1
    assert all(value == 0 or math.frexp(abs(value))[0] == 0.5 for value in levels)
    magnitudes = sorted({abs(value) for value in levels} - {0.0})
    assert all(high == 2 * low for low, high in itertools.pairwise(magnitudes))


@pytest.mark.parametrize(
    ("bits", "sums"),
    [
        # Li et al., 2020, section 2.2: each term 0 or one of its powers of two, here times the largest denominator.
        (2, [[0, 1]]),
        (3, [[0, 4, 2, 1]]),
        (4, [[0, 8, 4, 1], [0, 2]]),
        (5, [[0, 32, 8, 2], [0, 16, 4, 1]]),
        (6, [[0, 64, 16, 2], [0, 32, 8, 1], [0, 4]]),
        (7, [[0, 256, 32, 4], [0, 128, 16, 2], [0, 64, 8, 1]]),
    ],
)
def test_additive_powers_of_two_are_the_published_sums(bits: int, sums: list[list[int]]) -> None:
    magnitudes = sorted(sum(parts) for parts in itertools.product(*sums))
    expected = [sign * value / magnitudes[-1] for sign in (-1, 1) for value in magnitudes if value or sign > 0]
    assert values("apot", bits) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("bits", range(2, 9))
def test_sums_of_powers_are_all_different(bits: int) -> None:
    levels = values("apot", bits)
    assert len(levels) == 2**bits - 1
    # More evenly than single powers: no gap at the outer end is as wide as theirs.
    assert bits < 4 or levels[-1] - levels[-2] < 0.5


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("granularity", ["per_channel", {"per_group": 64}], ids=str)
def test_seq_is_paretoq_s_formula_to_the_bit(bits: int, granularity: Any) -> None:
    weight = drawn()
    grid = choose_grid(weight, make("seq", granularity=granularity), bits)
    alpha, _ = grid.by_column(weight.shape[1])
    largest = [
        part.abs().amax(dim=1, keepdim=True) for part in weight.split(64 if grid.group_size == 64 else 300, dim=1)
    ]
    assert torch.equal(grid.scale, torch.cat(largest, dim=1))
    n = 2 ** (bits - 1)
    expected = (((weight / alpha).clamp(-0.99, 0.99) * n - 0.5).round() + 0.5) / n * alpha
    assert torch.equal(fake_quantize(weight, grid), expected)


def test_seq_goes_the_way_of_the_formula_at_ties() -> None:
    weight = torch.tensor([[-1.0, -0.5, 0.0, 0.5, 1.0]])
    assert fake_quantize(weight, choose_grid(weight, make("seq"), 2)).tolist() == [[-0.75, -0.75, 0.25, 0.25, 0.75]]


def test_ternary_by_absmax_is_paretoq_s_formula_to_the_bit() -> None:
    weight = drawn()
    alpha = weight.abs().amax(dim=1, keepdim=True)
    expected = ((weight / alpha).clamp(-0.99, 0.99) * 1.5).round() / 1.5 * alpha
    assert torch.equal(fake_quantize(weight, choose_grid(weight, make("ternary", range="absmax"), 2)), expected)


def test_ternary_by_mean_is_bitnet_s_to_the_bit() -> None:
    weight = drawn()
    gamma = weight.abs().mean(dim=1, keepdim=True)
    expected = (weight / gamma).round().clamp(-1, 1) * gamma
    assert torch.equal(fake_quantize(weight, choose_grid(weight, make("ternary"), 2)), expected)
    of_all = choose_grid(weight, make("ternary", granularity="per_tensor"), 2)
    torch.testing.assert_close(of_all.scale, weight.abs().mean().reshape(1, 1))


def test_ternary_ranges_differ_by_their_error() -> None:
    weight, errors = drawn(), {}
    for rule in ("absmax", "mean", "mse"):
        quantized = fake_quantize(weight, choose_grid(weight, make("ternary", range=rule), 2))
        errors[rule] = float((quantized - weight).square().sum())
    assert errors["mse"] < errors["mean"] < errors["absmax"]


def test_three_levels_take_eight_fifths_of_a_bit() -> None:
    weight = drawn(20, 300)
    grid = choose_grid(weight, make("ternary"), 2)
    assert grid.stored_bits(20, 300) == 20 * 300 * 8 / 5 + 20 * 32


def test_the_scale_of_two_levels_is_the_least_squares_one() -> None:
    weight = drawn()
    grid = choose_grid(weight, make("binary"), 1)
    signs = torch.where(weight >= 0, 1.0, -1.0)
    closed = (weight * signs).sum(dim=1, keepdim=True) / signs.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(grid.scale, closed)
    assert torch.equal(fake_quantize(weight, grid), signs * grid.scale)
    least = (fake_quantize(weight, grid) - weight).square().sum()
    for factor in (0.98, 1.02):
        assert (signs * grid.scale * factor - weight).square().sum() > least
    assert grid.stored_bits(20, 300) == 20 * 300 + 20 * 32


def test_the_sign_of_zero_is_positive() -> None:
    weight = torch.tensor([[0.0, -0.0, 2.0, -2.0]])
    grid = choose_grid(weight, make("binary"), 1)
    assert fake_quantize(weight, grid).tolist() == [[1.0, 1.0, 1.0, -1.0]]
    assert quantize(weight, grid).tolist() == [[1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("name", ["nf", "fp", "pot", "apot", "seq"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_searched_range_is_never_worse(name: str, bits: int) -> None:
    weight = drawn() ** 3
    errors = [
        (fake_quantize(weight, choose_grid(weight, make(name, range=rule), bits)) - weight).square().sum(dim=1)
        for rule in ("mse", "absmax")
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all() and errors[0].sum() < 0.95 * errors[1].sum()

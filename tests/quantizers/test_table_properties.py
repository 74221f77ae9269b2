"""What holds for tables of levels on any weights."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quant.levels import LevelTable
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS

TABLES = ["nf", "fp", "pot", "apot", "seq", "ternary", "binary", "mxfp4", "mx", "nvfp4"]
SYMMETRIC = [name for name in TABLES if name not in ("nf", "seq")]
EQUIVARIANT = [name for name in QUANTIZERS.names() if name != "hqq"]  # its beta is no multiple of the weights


def make(name: str, **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


# 0, or far enough from it that no product of a level and a scale leaves the normal numbers of float32.
a_weight = st.one_of(st.just(0.0), st.floats(2**-10, 128, width=32), st.floats(-128, -(2**-10), width=32))
rows = st.integers(1, 20).flatmap(
    lambda width: st.lists(st.lists(a_weight, min_size=width, max_size=width), min_size=1, max_size=3)
)


@st.composite
def table_and_bits(draw: st.DrawFn, names: list[str]) -> tuple[Quantizer, int]:
    name = draw(st.sampled_from(names))
    ranges = ["absmax", "mse"] if "range" in QUANTIZERS.get(name).model_fields else [None]
    rule = draw(st.sampled_from(ranges))
    quantizer = make(name, **({} if rule is None else {"range": rule}))
    return quantizer, draw(st.sampled_from([bits for bits in range(1, 9) if quantizer.refuses(bits) is None]))


@given(table_and_bits(TABLES), rows)
def test_every_weight_goes_to_its_nearest_level(case: tuple[Quantizer, int], drawn: list[list[float]]) -> None:
    quantizer, bits = case
    weight = torch.tensor(drawn)
    grid = choose_grid(weight, quantizer, bits)
    levels = grid.levels
    assert isinstance(levels, LevelTable)
    scale, _ = grid.by_column(*reversed(weight.shape))
    positions, codes = (weight / scale).flatten(), quantize(weight, grid).flatten().long()
    exact = [Fraction(float(torch.tensor(value))) for value in levels.values]  # as float32 holds them
    zero = next(code for code, value in enumerate(exact) if value >= 0)
    for position, code in zip(positions.tolist(), codes.tolist(), strict=True):
        own = abs(exact[code] - Fraction(position))
        for neighbour in {max(code - 1, 0), min(code + 1, levels.quant_max)} - {code}:
            distance = abs(exact[neighbour] - Fraction(position))
            # Of two that are as near, the one an even number of levels from the lowest that is not negative.
            assert own < distance or (own == distance and (code - zero) % 2 == 0)


@given(table_and_bits(TABLES), rows)
def test_quantizing_again_changes_nothing(case: tuple[Quantizer, int], drawn: list[list[float]]) -> None:
    quantizer, bits = case
    weight = torch.tensor(drawn)
    grid = choose_grid(weight, quantizer, bits)
    once = fake_quantize(weight, grid)
    assert torch.equal(fake_quantize(once, grid), once)


@given(table_and_bits(SYMMETRIC), rows)
def test_opposite_weights_go_to_opposite_levels(case: tuple[Quantizer, int], drawn: list[list[float]]) -> None:
    quantizer, bits = case
    weight = torch.tensor(drawn)
    grid, opposite = (choose_grid(one, quantizer, bits) for one in (weight, -weight))
    assert torch.equal(grid.scale, opposite.scale)
    found, mirrored = fake_quantize(weight, grid), fake_quantize(-weight, opposite)
    assert torch.equal(found[weight != 0], -mirrored[weight != 0])


@given(table_and_bits(EQUIVARIANT), rows, st.integers(-6, 6))
def test_levels_scale_with_the_weights(case: tuple[Quantizer, int], drawn: list[list[float]], exponent: int) -> None:
    quantizer, bits = case
    weight, factor = torch.tensor(drawn), 2.0**exponent

    def quantized(matrix: Tensor) -> Tensor:
        importance = torch.arange(1, matrix.shape[1] + 1)[None].float()
        return fake_quantize(matrix, choose_grid(matrix, quantizer, bits, importance))

    alive = (weight != 0).any(dim=1)  # rows of nothing have a scale of their own
    assert torch.equal(quantized(weight * factor)[alive], quantized(weight)[alive] * factor)

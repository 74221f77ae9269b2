"""A stored layer is the layer, and takes the bits that are counted for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import CellError
from qbench.quant.block_grid import BlockGrid, dequantize
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Codebook, Levels, LevelTable
from qbench.quant.packed_layer import pack_layer, unpack_layer
from qbench.quant.scale_format import FLOAT32, Float32, PowerOfTwo, ScaledE4M3

SYMMETRIC = [
    IntegerGrid(bits, True, convention)
    for bits in range(1, 9)
    for convention in ("full_range", "narrow_range", "larger_side")
    if bits > 1 or convention != "narrow_range"
]
ASYMMETRIC = [IntegerGrid(bits, False, real_zero_point=real) for bits in range(1, 9) for real in (False, True)]
TABLES = [
    LevelTable(1, (-1.0, 1.0), "binary"),
    LevelTable(2, (-1.0, 0.0, 1.0), "ternary"),
    LevelTable(3, (-1.0, -0.1, 0.0, 0.3, 1.0), "five", range_end=2.0),
    LevelTable(4, (-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6), "e2m1"),
]
every_levels = st.sampled_from([*SYMMETRIC, *ASYMMETRIC, *TABLES, *(Codebook(bits) for bits in range(1, 9))])


@dataclass(frozen=True)
class Case:
    codes: torch.Tensor
    grid: BlockGrid


@st.composite
def layers(draw: st.DrawFn, levels: st.SearchStrategy[Levels] = every_levels) -> Case:
    """Draw a matrix of codes of any shape, on any levels, granularity and format of the scales."""
    chosen = draw(levels)
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    codes = torch.randint(chosen.quant_min, chosen.quant_max + 1, (rows, columns), generator=generator).float()
    if isinstance(chosen, Codebook):
        own = draw(st.sampled_from([1, rows]))
        table = torch.randn(own, chosen.count, generator=generator).sort(dim=1).values
        ones = torch.ones(own, 1)
        return Case(codes, BlockGrid(chosen, ones, ones * 0, columns, table=table))
    group_size = draw(st.integers(1, columns))
    block_rows = draw(st.integers(1, rows))
    row_blocks = draw(st.sampled_from([1, -(-rows // block_rows)]))
    shape = (row_blocks, -(-columns // group_size))
    scale = torch.rand(shape, generator=generator) + 0.01
    if chosen.real_zero_point:
        zero_point = torch.randn(shape, generator=generator)
    else:
        first, last = chosen.zero_points[0], chosen.zero_points[-1]
        zero_point = torch.randint(first, last + 1, shape, generator=generator).float()
    kept = draw(st.sampled_from([FLOAT32, PowerOfTwo(), ScaledE4M3(float(scale.max() / 448))]))
    grid = BlockGrid(chosen, kept.round(scale), zero_point, group_size, block_rows, scale_format=kept)
    return Case(codes, grid)


@given(layers())
def test_what_is_stored_takes_the_bits_that_are_counted(case: Case) -> None:
    tensors, _ = pack_layer(case.codes, case.grid)
    counted = case.grid.stored_bits(*case.codes.shape)
    really = sum(8 * tensor.nbytes for tensor in tensors.values())
    packed = [tensor for tensor in tensors.values() if tensor.dtype == torch.uint8]
    assert counted <= really <= counted + 7 * len(packed)


@given(layers())
def test_what_is_read_is_what_was_stored_to_the_bit(case: Case) -> None:
    tensors, about = pack_layer(case.codes, case.grid)
    codes, grid = unpack_layer(tensors, json.loads(json.dumps(about)))
    assert torch.equal(codes, case.codes)
    assert (grid.levels, grid.scale_format, grid.group_size, grid.block_rows) == (
        case.grid.levels,
        case.grid.scale_format,
        case.grid.group_size,
        case.grid.block_rows,
    )
    assert torch.equal(grid.scale, case.grid.scale) and torch.equal(grid.zero_point, case.grid.zero_point)
    assert torch.equal(dequantize(codes, grid), dequantize(case.codes, case.grid))


@pytest.mark.parametrize("exponent", [-126, -1, 0, 127])
def test_powers_of_two_keep_their_exponents_to_both_ends(exponent: int) -> None:
    scale = torch.tensor([[2.0**exponent]])
    grid = BlockGrid(IntegerGrid(4, True), scale, scale * 0, 4, scale_format=PowerOfTwo())
    tensors, about = pack_layer(torch.ones(2, 4), grid)
    assert tensors["scale"].tolist() == [[exponent + 127]]
    assert torch.equal(unpack_layer(tensors, about)[1].scale, scale)


@given(layers(st.sampled_from(SYMMETRIC)))
def test_the_grid_is_stored_as_it_is_on_any_device_and_in_any_type(case: Case) -> None:
    tensors, about = pack_layer(case.codes.double(), replace(case.grid, scale=case.grid.scale.double()))
    expected, expected_about = pack_layer(case.codes, case.grid)
    assert about == expected_about
    assert all(torch.equal(tensors[name].view(torch.uint8), one.view(torch.uint8)) for name, one in expected.items())


def test_levels_of_another_kind_are_refused() -> None:
    class Own(LevelTable):
        pass

    grid = BlockGrid(Own(2, (0.0, 1.0)), torch.ones(1, 1), torch.zeros(1, 1), 4)
    with pytest.raises(CellError, match=r"levels of type Own cannot be stored \(allowed: IntegerGrid, LevelTable, "):
        pack_layer(torch.zeros(1, 4), grid)


def test_a_grid_that_counts_other_bits_than_it_takes_is_refused() -> None:
    grid = BlockGrid(
        IntegerGrid(4, symmetric=True), torch.ones(2, 1), torch.zeros(2, 1), 8, scale_format=Float32(bits=0)
    )
    with pytest.raises(CellError) as caught:
        pack_layer(torch.zeros(2, 8), grid)
    assert str(caught.value) == "the grid counts 64 bits, and 128 are stored: effective bits would be wrong"

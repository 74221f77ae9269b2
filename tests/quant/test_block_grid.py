"""Affine quantization against torch's own fake quantization, numpy, and a search over all levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize, join_groups, quantize, stack_rows
from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams

ROWS, COLUMNS = 12, 40

every_grid = pytest.mark.parametrize("bits", range(1, 9))
both_symmetries = pytest.mark.parametrize("symmetric", [True, False])


def drawn_grid(bits: int, symmetric: bool, rows: int, groups: int, group_size: int) -> BlockGrid:
    generator = torch.Generator().manual_seed(bits)
    levels = IntegerGrid(bits, symmetric)
    scale = torch.rand(rows, groups, generator=generator) + 0.01
    zero_point = torch.zeros(rows, groups)
    if not symmetric:
        zero_point = torch.randint(0, 2**bits, (rows, groups), generator=generator).float()
    return BlockGrid(levels, scale, zero_point, group_size)


def drawn_weight(grid: BlockGrid, rows: int, columns: int) -> Tensor:
    """Return weights all over the grid's range and a little beyond both its ends."""
    generator = torch.Generator().manual_seed(columns)
    levels = grid.levels
    scale, zero_point = grid.by_column(columns)
    span = levels.quant_max - levels.quant_min + 4
    position = torch.rand(rows, columns, generator=generator) * span + levels.quant_min - 2
    return (position - zero_point) * scale


def by_torch(weight: Tensor, grid: BlockGrid) -> Tensor:
    levels = grid.levels
    if grid.scale.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(
            weight, grid.scale.flatten(), grid.zero_point.flatten().int(), levels.quant_min, levels.quant_max
        )
    blocks = weight.reshape(grid.scale.numel(), -1)
    scale, zero_point = grid.scale.flatten(), grid.zero_point.flatten().int()
    quantized = torch.fake_quantize_per_channel_affine(blocks, scale, zero_point, 0, levels.quant_min, levels.quant_max)
    return quantized.reshape(weight.shape)


LAYOUTS = {"per_tensor": (1, 1, COLUMNS), "per_channel": (ROWS, 1, COLUMNS), "per_group": (ROWS, 5, 8)}


@every_grid
@both_symmetries
@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_torch(bits: int, symmetric: bool, layout: str) -> None:
    grid = drawn_grid(bits, symmetric, *LAYOUTS[layout])
    weight = drawn_weight(grid, ROWS, COLUMNS)
    scale, _ = grid.by_column(COLUMNS)
    position = weight / scale
    # torch multiplies by 1/scale, we divide: next to a tie the two may round to different sides.
    from_tie = ((position - position.floor()) - 0.5).abs()
    ours, theirs = fake_quantize(weight, grid), by_torch(weight, grid)
    clear = from_tie > 1e-4
    assert clear.float().mean() > 0.98
    assert torch.equal(ours[clear], theirs[clear])
    assert ((ours - theirs) / scale).round().abs().max() <= 1


ALL_GRIDS = [
    IntegerGrid(bits, symmetric, convention)
    for bits in range(1, 9)
    for symmetric, convention in (
        (False, "full_range"),
        (True, "full_range"),
        (True, "narrow_range"),
        (True, "larger_side"),
    )
    if (bits, convention) != (1, "narrow_range")
]
weights = st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=40)


@given(st.sampled_from(ALL_GRIDS), weights, st.floats(2**-6, 8, width=32), st.data())
def test_agrees_with_torch_on_any_weights(
    levels: IntegerGrid, drawn: list[float], scale: float, data: st.DataObject
) -> None:
    zero_point = data.draw(st.integers(levels.zero_points[0], levels.zero_points[-1]))
    grid = BlockGrid(levels, torch.tensor([[scale]]), torch.tensor([[float(zero_point)]]), len(drawn))
    weight = torch.tensor([drawn])
    position = weight / scale
    # torch multiplies by 1/scale, and rounds after the zero point is added: a tie may go to the other side.
    clear = ((position - position.floor()) - 0.5).abs() > 1e-4 * (1 + position.abs())
    ours = fake_quantize(weight, grid)
    theirs = torch.fake_quantize_per_channel_affine(
        weight, grid.scale.flatten(), grid.zero_point.flatten().int(), 0, levels.quant_min, levels.quant_max
    )
    assert torch.equal(ours[clear], theirs[clear])


@given(
    st.sampled_from([levels for levels in ALL_GRIDS if levels.symmetric and levels.convention != "larger_side"]),
    st.lists(st.integers(-1200, 1200), min_size=1, max_size=40),
    st.integers(-20, 20),
)
def test_agrees_with_torch_at_ties_of_signed_levels(levels: IntegerGrid, quarters: list[int], exponent: int) -> None:
    """A power of two has an exact reciprocal, and without a zero point nothing is added before rounding."""
    scale = torch.tensor([2.0**exponent])
    weight = torch.tensor([quarters]) / 4 * scale
    grid = BlockGrid(levels, scale[None], torch.zeros(1, 1), len(quarters))
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scale, torch.zeros(1, dtype=torch.int32), 0, levels.quant_min, levels.quant_max
    )
    assert torch.equal(fake_quantize(weight, grid), theirs)


@every_grid
@both_symmetries
def test_differs_from_torch_at_ties_by_one_step_only(bits: int, symmetric: bool) -> None:
    grid = drawn_grid(bits, symmetric, ROWS, 1, COLUMNS)
    ties = torch.arange(COLUMNS) - COLUMNS // 2 + 0.5
    weight = ties * grid.scale
    assert ((fake_quantize(weight, grid) - by_torch(weight, grid)) / grid.scale).round().abs().max() <= 1


@every_grid
@both_symmetries
def test_divides_rounds_half_to_even_and_adds_the_zero_point_last(bits: int, symmetric: bool) -> None:
    grid = drawn_grid(bits, symmetric, ROWS, 1, COLUMNS)
    weight = (torch.arange(COLUMNS) - COLUMNS // 2 + 0.5) * grid.scale
    quotient = weight.numpy() / grid.scale.numpy()
    codes = np.rint(quotient) + grid.zero_point.numpy()
    assert np.array_equal(quantize(weight, grid).numpy(), np.clip(codes, grid.levels.quant_min, grid.levels.quant_max))
    # The ties are there to be told apart from a product with the reciprocal.
    assert (quotient % 1 == 0.5).any()


def test_ties_go_to_the_even_distance_from_zero() -> None:
    grid = BlockGrid(IntegerGrid(4, symmetric=False), torch.tensor([[1.0]]), torch.tensor([[5.0]]), 4)
    assert quantize(torch.tensor([[0.5, 1.5, 2.5, -0.5]]), grid).tolist() == [[5, 7, 7, 5]]


@every_grid
@both_symmetries
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_weight_goes_to_its_nearest_level(bits: int, symmetric: bool, layout: str, device: torch.device) -> None:
    grid = drawn_grid(bits, symmetric, *LAYOUTS[layout])
    weight = drawn_weight(grid, ROWS, COLUMNS).to(device)
    grid = BlockGrid(grid.levels, grid.scale.to(device), grid.zero_point.to(device), grid.group_size)
    scale, zero_point = (part.expand(ROWS, COLUMNS)[..., None] for part in grid.by_column(COLUMNS))
    levels = torch.arange(grid.levels.quant_min, grid.levels.quant_max + 1, device=device)
    distances = ((levels - zero_point) * scale - weight[..., None]).abs().min(dim=-1).values
    error = (fake_quantize(weight, grid) - weight).abs()
    torch.testing.assert_close(error, distances, rtol=0, atol=1e-4 * float(scale.max()))


@every_grid
@both_symmetries
@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_are_levels_and_quantizing_again_changes_nothing(bits: int, symmetric: bool, layout: str) -> None:
    grid = drawn_grid(bits, symmetric, *LAYOUTS[layout])
    weight = drawn_weight(grid, ROWS, COLUMNS)
    codes = quantize(weight, grid)
    assert codes.dtype == weight.dtype and codes.shape == weight.shape
    assert torch.equal(codes, codes.round())
    assert grid.levels.quant_min <= codes.min() and codes.max() <= grid.levels.quant_max
    once = fake_quantize(weight, grid)
    assert torch.equal(once, dequantize(codes, grid))
    assert torch.equal(fake_quantize(once, grid), once)
    assert torch.equal(quantize(once, grid), codes)


@both_symmetries
def test_zero_stays_zero(symmetric: bool) -> None:
    grid = drawn_grid(3, symmetric, ROWS, 5, 8)
    assert fake_quantize(torch.zeros(ROWS, COLUMNS), grid).count_nonzero() == 0


@both_symmetries
def test_a_shorter_last_group_is_quantized_as_if_it_stood_alone(symmetric: bool) -> None:
    grid = drawn_grid(4, symmetric, ROWS, 6, 64)
    weight = drawn_weight(grid, ROWS, 344)
    pieces = weight.split(64, dim=1)
    assert [piece.shape[1] for piece in pieces] == [64, 64, 64, 64, 64, 24]
    apart = [
        fake_quantize(piece, BlockGrid(grid.levels, grid.scale[:, [i]], grid.zero_point[:, [i]], piece.shape[1]))
        for i, piece in enumerate(pieces)
    ]
    assert torch.equal(fake_quantize(weight, grid), torch.cat(apart, dim=1))


def test_blocks_are_joined_row_by_row() -> None:
    levels = IntegerGrid(4, symmetric=False)
    whole = QParams(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    rest = QParams(torch.tensor([[5.0], [6.0]]), torch.tensor([[5.0], [6.0]]))
    grid = join_groups([whole, rest], levels, rows=2, group_size=8)
    assert grid.scale.tolist() == grid.zero_point.tolist() == [[1, 2, 5], [3, 4, 6]]
    assert grid.by_column(20)[0].tolist() == [[1] * 8 + [2] * 8 + [5] * 4, [3] * 8 + [4] * 8 + [6] * 4]


@pytest.mark.parametrize("stacks", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_stacked_matrices_are_quantized_as_if_they_stood_alone(layout: str, stacks: int) -> None:
    rows, groups, group_size = LAYOUTS[layout]
    first, second = (drawn_grid(3, False, rows, groups, group_size) for _ in range(2))
    second = second.with_scale(second.scale * 3)
    weights = [drawn_weight(grid, ROWS, COLUMNS) for grid in (first, second)]

    def stacked(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.view(stacks, -1, COLUMNS) for part in parts], dim=1)

    together = fake_quantize(stacked(weights), stack_rows([first, second], [ROWS, ROWS], stacks))
    assert torch.equal(together, stacked([fake_quantize(weights[0], first), fake_quantize(weights[1], second)]))


def test_another_scale_leaves_the_rest_and_the_original() -> None:
    grid = drawn_grid(3, False, ROWS, 1, COLUMNS)
    wider = grid.with_scale(grid.scale * 2)
    assert torch.equal(wider.scale, grid.scale * 2)
    assert (wider.levels, wider.group_size, wider.zero_point) == (grid.levels, grid.group_size, grid.zero_point)


@pytest.mark.parametrize(
    ("symmetric", "layout", "expected"),
    [
        (True, "per_tensor", 3 * 480 + 32),
        (True, "per_channel", 3 * 480 + 32 * 12),
        (True, "per_group", 3 * 480 + 32 * 60),
        (False, "per_tensor", 3 * 480 + 32 + 3),
        (False, "per_channel", 3 * 480 + 35 * 12),
        (False, "per_group", 3 * 480 + 35 * 60),
    ],
)
def test_scales_and_zero_points_are_stored_too(symmetric: bool, layout: str, expected: int) -> None:
    assert drawn_grid(3, symmetric, *LAYOUTS[layout]).stored_bits(ROWS, COLUMNS) == expected

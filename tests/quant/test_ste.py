"""Gradients of fake quantization against the published equations, element by element, and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qbench.quant.block_grid import BlockGrid, fake_quantize
from qbench.quant.fused import block_sums, pass_inside, round_to_levels, step_size_gradients
from qbench.quant.grid import IntegerGrid
from qbench.quant.ste import fake_quantize_lsq, fake_quantize_ste
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

ROWS, COLUMNS = 3, 20
# rows, groups and columns of the scale
LAYOUTS = {"per_tensor": (1, 1, COLUMNS), "per_channel": (ROWS, 1, COLUMNS), "per_group": (ROWS, 3, 8)}

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
both_symmetries = pytest.mark.parametrize("symmetric", [True, False])


def drawn(layout: str, symmetric: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, BlockGrid]:
    """Return weights within and beyond the range but clear of its ends and of ties, a gradient, and the grid."""
    generator = torch.Generator().manual_seed(7)
    rows, groups, group_size = LAYOUTS[layout]
    levels = IntegerGrid(3, symmetric)
    scale = torch.rand(rows, groups, generator=generator, dtype=dtype) + 0.5
    zero_point = torch.zeros(rows, groups, dtype=dtype)
    if not symmetric:
        zero_point = torch.randint(1, 6, (rows, groups), generator=generator).to(dtype)
    grid = BlockGrid(levels, scale, zero_point, group_size)
    by_column, zeros = grid.by_column(COLUMNS)
    code = torch.randint(levels.quant_min - 3, levels.quant_max + 4, (ROWS, COLUMNS), generator=generator)
    offset = (torch.rand(ROWS, COLUMNS, generator=generator) * 0.35 + 0.05) * torch.where(code % 2 == 0, 1, -1)
    weight = (code + offset - zeros).to(dtype) * by_column
    return weight, torch.randn(ROWS, COLUMNS, generator=generator, dtype=dtype), grid


def position_of(weight: Tensor, grid: BlockGrid) -> Tensor:
    scale, zero_point = grid.by_column(COLUMNS)
    return weight / scale + zero_point


@every_layout
@both_symmetries
def test_the_forward_pass_rounds_to_nearest(layout: str, symmetric: bool, device: torch.device) -> None:
    weight, _, grid = drawn(layout, symmetric)
    grid = BlockGrid(grid.levels, grid.scale.to(device), grid.zero_point.to(device), grid.group_size)
    weight = weight.to(device)
    expected, before = fake_quantize(weight, grid), weight.clone()
    assert torch.equal(fake_quantize_ste(weight, grid, masked=False), expected)
    assert torch.equal(fake_quantize_ste(weight, grid, masked=True), expected)
    assert torch.equal(fake_quantize_lsq(weight, grid.scale, grid, 1.0), expected)
    assert torch.equal(weight, before)


@every_layout
@both_symmetries
def test_without_a_mask_the_gradient_passes_unchanged(layout: str, symmetric: bool) -> None:
    weight, upstream, grid = drawn(layout, symmetric)
    latent = weight.requires_grad_()
    fake_quantize_ste(latent, grid, masked=False).backward(upstream)
    assert torch.equal(latent.grad, upstream)


@every_layout
@both_symmetries
def test_with_a_mask_clipped_weights_get_no_gradient(layout: str, symmetric: bool) -> None:
    weight, upstream, grid = drawn(layout, symmetric)
    latent = weight.clone().requires_grad_()
    fake_quantize_ste(latent, grid, masked=True).backward(upstream)
    position = position_of(weight, grid)
    clipped = (position < grid.levels.quant_min) | (position > grid.levels.quant_max)
    assert 0.1 < clipped.float().mean() < 0.9
    assert torch.equal(latent.grad, upstream.masked_fill(clipped, 0.0))


def test_a_weight_on_the_last_level_is_not_clipped() -> None:
    grid = BlockGrid(IntegerGrid(2, symmetric=True), torch.tensor([[1.0]]), torch.tensor([[0.0]]), 4)
    latent = torch.tensor([[-2.0, 1.0, -2.01, 1.01]], requires_grad=True)
    fake_quantize_ste(latent, grid, masked=True).sum().backward()
    assert latent.grad.tolist() == [[1, 1, 0, 0]]


def paper_gradients(
    weight: Tensor, upstream: Tensor, grid: BlockGrid, gain: float
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the gradients of weight and step size by equations 3 and 5 of the LSQ paper, one weight at a time."""
    rows, groups = grid.scale.shape
    by_weight = [[0.0] * COLUMNS for _ in range(ROWS)]
    by_step = [[0.0] * groups for _ in range(rows)]
    for i in range(ROWS):
        for j in range(COLUMNS):
            row, group = (i if rows > 1 else 0), (j // grid.group_size if groups > 1 else 0)
            s, z = grid.scale[row, group].item(), grid.zero_point[row, group].item()
            negative, positive = z - grid.levels.quant_min, grid.levels.quant_max - z  # Q_N and Q_P
            ratio = weight[i, j].item() / s
            if ratio <= -negative:
                slope, passes = -negative, 0.0
            elif ratio >= positive:
                slope, passes = positive, 0.0
            else:
                slope, passes = -ratio + round(ratio), 1.0
            by_weight[i][j] = upstream[i, j].item() * passes
            by_step[row][group] += upstream[i, j].item() * slope * gain
    return by_weight, by_step


@every_layout
@both_symmetries
@pytest.mark.parametrize("gain", [1.0, 0.03])
def test_lsq_gradients_are_the_paper_s(layout: str, symmetric: bool, gain: float) -> None:
    weight, upstream, grid = drawn(layout, symmetric)
    latent, step = weight.clone().requires_grad_(), grid.scale.clone().requires_grad_()
    fake_quantize_lsq(latent, step, grid, gain).backward(upstream)
    by_weight, by_step = paper_gradients(weight, upstream, grid, gain)
    assert latent.grad.tolist() == by_weight
    assert step.grad.shape == grid.scale.shape
    torch.testing.assert_close(step.grad, torch.tensor(by_step), rtol=1e-4, atol=1e-4 * gain)


@every_layout
@both_symmetries
def test_lsq_gradients_are_the_slopes_of_the_surrogate(layout: str, symmetric: bool) -> None:
    """The surrogate holds each weight's rounding error, in steps, as it is at the point of the gradient."""
    weight, upstream, grid = drawn(layout, symmetric, torch.float64)

    def clipped(w: Tensor, s: Tensor) -> Tensor:
        by_column, zeros = grid.with_scale(s).by_column(COLUMNS)
        low, high = grid.levels.quant_min - zeros, grid.levels.quant_max - zeros
        return torch.minimum(torch.maximum(w / by_column, low), high)

    rounding_error = clipped(weight, grid.scale).round() - clipped(weight, grid.scale)

    def loss(w: Tensor, s: Tensor) -> float:
        by_column, _ = grid.with_scale(s).by_column(COLUMNS)
        return float(((clipped(w, s) + rounding_error) * by_column * upstream).sum())

    def slopes(at: Tensor, value: object) -> Tensor:
        found = torch.empty_like(at)
        for index in range(at.numel()):
            shift = torch.zeros_like(at)
            shift.view(-1)[index] = 1e-6
            found.view(-1)[index] = (value(at + shift) - value(at - shift)) / 2e-6
        return found

    latent, step = weight.clone().requires_grad_(), grid.scale.clone().requires_grad_()
    fake_quantize_lsq(latent, step, grid, 1.0).backward(upstream)
    torch.testing.assert_close(latent.grad, slopes(weight, lambda w: loss(w, grid.scale)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(step.grad, slopes(grid.scale, lambda s: loss(weight, s)), rtol=1e-6, atol=1e-6)


def test_where_weights_are_clipped_lsq_has_the_true_slope() -> None:
    grid = BlockGrid(IntegerGrid(2, symmetric=True), torch.tensor([[0.5]]), torch.tensor([[0.0]]), 2)
    weight = torch.tensor([[-4.0, 3.0]])
    step = grid.scale.clone().requires_grad_()
    (fake_quantize_lsq(weight, step, grid, 1.0) * torch.tensor([[1.0, 10.0]])).sum().backward()
    assert step.grad.tolist() == [[-2.0 + 10.0]]


def test_the_grid_s_own_scale_is_not_used_by_lsq() -> None:
    weight, _, grid = drawn("per_channel", symmetric=True)
    other = grid.with_scale(grid.scale * 7)
    assert torch.equal(
        fake_quantize_lsq(weight, grid.scale, other, 1.0), fake_quantize_lsq(weight, grid.scale, grid, 1.0)
    )


@pytest.mark.parametrize(("height", "width"), [(2, 8), (2, 5), (3, 8), (2, 20), (3, 20), (1, 8)])
@both_symmetries
def test_a_tile_s_step_gets_the_sum_of_its_weights_gradients(height: int, width: int, symmetric: bool) -> None:
    """Beside a grid with a step a weight, whose gradients are added up by hand; tiles are left over on both sides."""
    weight, upstream, fine = drawn("per_channel", symmetric)
    blocks, groups = -(-ROWS // height), -(-COLUMNS // width)
    generator = torch.Generator().manual_seed(8)
    scale = torch.rand(blocks, groups, generator=generator) + 0.5
    zero_point = torch.full((blocks, groups), 0.0 if symmetric else 3.0)
    grid = BlockGrid(fine.levels, scale, zero_point, width, height)
    every = [
        part.repeat_interleave(height, 0)[:ROWS].repeat_interleave(width, 1)[:, :COLUMNS]
        for part in (scale, zero_point)
    ]
    alone = BlockGrid(fine.levels, *every, 1)
    by_weight, by_step = step_size_gradients(weight, upstream, grid, torch.empty_like(weight))
    expected, of_each = step_size_gradients(weight, upstream, alone, torch.empty_like(weight))
    assert torch.equal(by_weight, expected)
    sums = [[tile.sum() for tile in band.split(width, dim=1)] for band in of_each.split(height)]
    torch.testing.assert_close(by_step, torch.tensor(sums))
    torch.testing.assert_close(
        block_sums(weight, grid),
        torch.tensor([[tile.sum() for tile in band.split(width, dim=1)] for band in weight.split(height)]),
    )


# A width and height that give several bands with a shorter last one.
LARGE = (700, 1000)


def large(granularity: object, symmetric: bool) -> tuple[Tensor, Tensor, BlockGrid]:
    generator = torch.Generator().manual_seed(1)
    weight, upstream = (torch.randn(LARGE, generator=generator) for _ in range(2))
    rule = AbsMax.model_validate({"name": "absmax", "granularity": granularity, "symmetric": symmetric})
    grid = choose_grid(weight * 0.5, rule, 3)
    return weight, upstream, grid


@pytest.mark.parametrize(
    "granularity",
    [
        "per_tensor",
        "per_channel",
        {"per_group": 50},
        {"per_group": 64},
        {"per_block": [50, 50]},
        {"per_block": [64, 64]},
    ],
    ids=str,
)
@both_symmetries
def test_bands_join_without_a_seam(granularity: object, symmetric: bool) -> None:
    weight, upstream, grid = large(granularity, symmetric)
    assert torch.equal(fake_quantize_ste(weight, grid, masked=False), fake_quantize(weight, grid))
    latent, step = weight.clone().requires_grad_(), grid.scale.clone().requires_grad_()
    by_column, zeros = grid.with_scale(step).by_column(LARGE[1], LARGE[0])
    low, high = grid.levels.quant_min, grid.levels.quant_max
    ratio = latent / by_column
    inside = (ratio + zeros > low) & (ratio + zeros < high)
    level = (ratio.detach().round() + zeros).clamp(low, high) - zeros
    (torch.where(inside, (level - ratio).detach() + ratio, level) * by_column * upstream).sum().backward()
    ours, ours_step = weight.clone().requires_grad_(), grid.scale.clone().requires_grad_()
    fake_quantize_lsq(ours, ours_step, grid, 1.0).backward(upstream)
    torch.testing.assert_close(ours.grad, latent.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours_step.grad, step.grad, rtol=1e-3, atol=1e-2)


@every_layout
@both_symmetries
def test_a_transposed_matrix_is_worked_on_as_any_other(layout: str, symmetric: bool) -> None:
    weight, upstream, grid = drawn(layout, symmetric)
    transposed, step = weight.T.contiguous().T, grid.scale.clone()
    assert not transposed.is_contiguous()
    found, by_step = step_size_gradients(transposed, upstream, grid, torch.empty_like(transposed))
    expected, expected_step = step_size_gradients(weight, upstream, grid.with_scale(step), torch.empty_like(weight))
    assert torch.equal(found, expected)
    torch.testing.assert_close(by_step, expected_step, rtol=1e-5, atol=1e-5)
    assert torch.equal(round_to_levels(transposed, grid, torch.empty_like(transposed)), fake_quantize(weight, grid))


@both_symmetries
def test_results_are_cast_to_the_type_they_are_written_to(symmetric: bool) -> None:
    weight, _, grid = large("per_channel", symmetric)
    written = round_to_levels(weight, grid, torch.empty(LARGE, dtype=torch.bfloat16))
    assert torch.equal(written, fake_quantize(weight, grid).bfloat16())


def test_a_gradient_can_be_overwritten() -> None:
    weight, upstream, grid = large("per_channel", symmetric=False)
    for kernel in (pass_inside, lambda *given: step_size_gradients(*given)[0]):
        apart, in_place = kernel(weight, upstream, grid, torch.empty_like(weight)), upstream.clone()
        kernel(weight, in_place, grid, in_place)
        assert torch.equal(in_place, apart)


@every_layout
def test_sums_of_what_shares_a_scale(layout: str) -> None:
    weight, _, grid = drawn(layout, symmetric=True, dtype=torch.float64)
    step = grid.scale.clone().requires_grad_()
    (grid.with_scale(step).by_column(COLUMNS)[0] * weight).sum().backward()
    torch.testing.assert_close(block_sums(weight, grid), step.grad)


@pytest.mark.parametrize("convention", ["full_range", "narrow_range", "larger_side", "asymmetric"])
def test_torch_s_own_operator_agrees(convention: str) -> None:
    """Step sizes are powers of two: torch multiplies by the reciprocal, which rounds otherwise."""
    generator = torch.Generator().manual_seed(3)
    symmetric = convention != "asymmetric"
    levels = IntegerGrid(3, symmetric, convention if symmetric else "full_range")  # type: ignore[arg-type]
    scale = 2.0 ** torch.randint(-3, 2, (40, 1), generator=generator)
    ends = levels.zero_points
    zero_point = torch.randint(ends[0], ends[-1] + 1, (40, 1), generator=generator).float()
    grid = BlockGrid(levels, scale, zero_point, 500)
    weight = torch.randn(40, 500, generator=generator) * 3 * scale
    position = weight / scale + zero_point
    # torch lets the gradient pass up to half a step beyond the last level, ours ends on it.
    between = (position < levels.quant_min) & (position.round() >= levels.quant_min)
    between |= (position > levels.quant_max) & (position.round() <= levels.quant_max)
    ours, theirs = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    mine = fake_quantize_ste(ours, grid, masked=True)
    reference = torch.fake_quantize_per_channel_affine(
        theirs, scale.flatten(), zero_point.flatten().int(), 0, levels.quant_min, levels.quant_max
    )
    tie = (weight / scale).frac().abs() == 0.5
    assert torch.equal(mine[~tie], reference[~tie])
    upstream = torch.randn(40, 500, generator=generator)
    mine.backward(upstream)
    reference.backward(upstream)
    assert torch.equal(ours.grad[~between], theirs.grad[~between])
    assert 0 < between.float().mean() < 0.3
    assert not ours.grad[between].any()

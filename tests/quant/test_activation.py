"""Grids over inputs against torch's own operators, and ranges against statistics of all inputs at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qbench.quant.activation import (
    BINS,
    InputHistogram,
    InputRange,
    dynamic_grid,
    grid_of,
    pack_input,
    positive_reach,
    unpack_input,
)
from qbench.quant.block_grid import fake_quantize
from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams
from qbench.quant.ste import fake_quantize_lsq, fake_quantize_ste

TOKENS, FEATURES = 7, 24

both_symmetries = pytest.mark.parametrize("symmetric", [True, False])
every_bits = pytest.mark.parametrize("bits", [2, 4, 8])


def inputs(tokens: int = TOKENS, seed: int = 0) -> Tensor:
    """Return tokens of very different sizes, off centre."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-2, 2, tokens)[:, None]
    return (torch.randn(tokens, FEATURES, generator=generator) + 0.5) * sizes


@every_bits
@both_symmetries
def test_a_static_grid_is_that_of_torch(bits: int, symmetric: bool, device: torch.device) -> None:
    levels = IntegerGrid(bits, symmetric)
    x = inputs().to(device).requires_grad_()
    # A power of two: torch multiplies by the reciprocal, which is exact then.
    zero = 0 if symmetric else min(3, levels.quant_max)
    params = QParams(torch.tensor([[0.125]], device=device), torch.tensor([[float(zero)]], device=device))
    found = fake_quantize_ste(x, grid_of(params, levels, FEATURES), masked=True)
    expected = torch.fake_quantize_per_tensor_affine(x, 0.125, zero, levels.quant_min, levels.quant_max)
    assert torch.equal(found, expected)
    assert not torch.equal(found, x)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (ours,) = torch.autograd.grad(found, x, upstream, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, x, upstream)
    # torch counts as clipped what rounds to beyond the last level, half a step further out.
    place = x.detach() / 0.125 + zero
    near_an_end = (place - levels.quant_min).abs().minimum((place - levels.quant_max).abs()) <= 0.5
    assert torch.equal(ours[~near_an_end], theirs[~near_an_end])
    assert (ours == 0).any() and (ours != 0).any()


@every_bits
@both_symmetries
@pytest.mark.parametrize("by_row", [True, False])
def test_a_dynamic_grid_is_that_of_torch_over_the_range_of_each_row(
    bits: int, symmetric: bool, by_row: bool, device: torch.device
) -> None:
    levels, x = IntegerGrid(bits, symmetric), inputs().to(device)
    grid = dynamic_grid(x, levels, by_row=by_row)
    assert grid.scale.shape == ((TOKENS, 1) if by_row else (1, 1))
    steps = 2**bits - 1
    for row in range(TOKENS):
        seen = x[row] if by_row else x
        low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
        scale = 2 * max(-low, high) / steps if symmetric else (high - low) / steps
        own = grid.scale[row if by_row else 0]
        assert float(own) == pytest.approx(scale, rel=1e-6)
        zero = int(grid.zero_point[row if by_row else 0])
        assert zero == (0 if symmetric else round(-low / float(own)))
        theirs = torch.fake_quantize_per_tensor_affine(x[row], float(own), zero, levels.quant_min, levels.quant_max)
        ours = fake_quantize(x, grid)[row]
        # Division and product with the reciprocal part ways at a tie only.
        assert (ours != theirs).sum() <= 1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=float(own) * 1.01)
    # Nothing is further than half a step from its level, but the top of a symmetric grid, which is half a step short.
    error = (fake_quantize(x, grid) - x).abs() / grid.scale
    assert error.max() <= (1.0 if symmetric and bits == 2 else 0.51)


def test_rows_have_scales_of_their_own() -> None:
    x, levels = inputs(), IntegerGrid(8, symmetric=False)
    alone = torch.cat([fake_quantize(row[None], dynamic_grid(row[None], levels, by_row=True)) for row in x])
    assert torch.equal(fake_quantize(x, dynamic_grid(x, levels, by_row=True)), alone)
    together = fake_quantize(x, dynamic_grid(x, levels, by_row=False))
    assert not torch.equal(together, alone)
    assert (together - x).square().sum() > (alone - x).square().sum()


@both_symmetries
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_constant_inputs_stay_next_to_what_they_are(symmetric: bool, value: float) -> None:
    x, levels = torch.full((2, 5), value), IntegerGrid(4, symmetric)
    found = fake_quantize(x, dynamic_grid(x, levels, by_row=True))
    assert torch.isfinite(found).all()
    assert (found - x).abs().max() <= abs(value) / 14  # half a step of 15
    if not symmetric:
        torch.testing.assert_close(found, x)


@both_symmetries
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("zero", [0, 1])
def test_learned_step_sizes_are_lsq_by_hand(bits: int, symmetric: bool, zero: int) -> None:
    levels = IntegerGrid(bits, symmetric)
    zero = 0 if symmetric else zero
    x = inputs(3).requires_grad_()
    step, gain = torch.tensor([[0.3]], requires_grad=True), 0.05
    params = QParams(torch.ones(1, 1), torch.full((1, 1), float(zero)))
    found = fake_quantize_lsq(x, step, grid_of(params, levels, FEATURES), gain)
    # Equations 1 to 3 and the gradient scale of section 2.2, with detached terms as the paper's appendix A has it.
    scaled = (step - step * gain).detach() + step * gain
    low, high = levels.quant_min - zero, levels.quant_max - zero
    clipped = (x / scaled).clamp(low, high)
    expected = ((clipped.round() - clipped).detach() + clipped) * scaled
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad(found, (x, step), upstream)
    theirs = torch.autograd.grad(expected, (x, step), upstream)
    assert torch.equal(ours[0] == 0, theirs[0] == 0) and (ours[0] == 0).any()
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-6)
    assert float(ours[1].abs()) > 0


@pytest.mark.parametrize(
    ("levels", "zero", "reach"),
    [
        (IntegerGrid(4, symmetric=True), 0, 7),
        (IntegerGrid(2, symmetric=True), 0, 1),
        (IntegerGrid(4, symmetric=False), 0, 15),  # behind a ReLU, as in the paper
        (IntegerGrid(4, symmetric=False), 15, 15),
        (IntegerGrid(4, symmetric=False), 6, 9),
        (IntegerGrid(2, symmetric=False), 2, 2),
    ],
)
def test_the_longer_side_of_0_is_counted(levels: IntegerGrid, zero: int, reach: int) -> None:
    assert positive_reach(levels, torch.full((1, 1), float(zero))) == reach


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_range_is_that_of_all_batches(dtype: torch.dtype, device: torch.device) -> None:
    x = inputs(40).to(device, dtype)
    seen = InputRange()
    assert seen.is_empty
    for batch in (x[:3], x[:0], x[3:20], x[20:]):
        seen.add(batch)
    assert not seen.is_empty
    assert (float(seen.low), float(seen.high)) == (float(x.min()), float(x.max()))
    assert float(seen.mean_magnitude()) == pytest.approx(float(x.double().abs().mean()), rel=1e-6)
    params = seen.params(IntegerGrid(8, symmetric=False))
    assert float(params.scale) == pytest.approx((float(x.max()) - float(x.min())) / 255, rel=1e-6)


def histogram_of(x: Tensor, *sizes: int) -> InputHistogram:
    seen = InputRange()
    seen.add(x)
    histogram = InputHistogram(seen.low, seen.high)
    for batch in x.split(sizes or len(x)):
        histogram.add(batch)
    return histogram


def test_a_histogram_counts_each_input_once_in_any_order(device: torch.device) -> None:
    x = inputs(40).to(device)
    histogram = histogram_of(x)
    assert int(histogram.counts.sum()) == x.numel()
    assert torch.equal(histogram.counts, histogram_of(x.flip(0), 1, 30, 9).counts)
    values = histogram.values()
    assert (values[0], values[-1]) == (x.min().cpu(), x.max().cpu())
    spread = values.repeat_interleave(histogram.counts.cpu())
    width = float(values[1] - values[0])
    assert (spread - x.flatten().sort().values.cpu()).abs().max() <= 0.51 * width


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9, 100])
def test_a_percentile_holds_its_share_of_the_inputs(percentile: float) -> None:
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) ** 3
    low, high = histogram_of(x).percentile(percentile)
    width = float(x.max() - x.min()) / (BINS - 1)
    reach = float(x.abs().flatten().sort().values[math.ceil(round(percentile * x.numel() / 100, 6)) - 1])
    assert float(high) == pytest.approx(min(reach, float(x.max())), abs=width)
    assert float(low) == pytest.approx(max(-reach, float(x.min())), abs=width)


def test_a_percentile_of_inputs_on_one_side_keeps_the_other_empty() -> None:
    low, high = histogram_of(torch.rand(100, 5, generator=torch.Generator().manual_seed(0)) + 1).percentile(90)
    assert 1 <= float(low) < 1.01 and 1.85 < float(high) < 1.95


def test_a_histogram_of_one_value() -> None:
    histogram = histogram_of(torch.full((4, 4), 2.5))
    assert int(histogram.counts[0]) == 16
    assert [float(end) for end in histogram.percentile(99)] == [2.5, 2.5]


@pytest.mark.parametrize("zero", [0, 13, 255])
def test_what_is_packed_is_read_back(zero: int) -> None:
    params = QParams(torch.full((1, 1), 0.1), torch.full((1, 1), float(zero)))
    packed = pack_input(params)
    assert {name: (tuple(one.shape), one.dtype) for name, one in packed.items()} == {
        "input_scale": ((1,), torch.float32),
        "input_zero_point": ((1,), torch.int16),
    }
    again = unpack_input(packed)
    assert torch.equal(again.scale, params.scale) and torch.equal(again.zero_points(), params.zero_points())
    assert again.zero_points().dtype == torch.float32

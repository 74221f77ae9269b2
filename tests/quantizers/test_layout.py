"""How a weight matrix is cut into blocks, and what is refused."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import torch
from pydantic import AllowInfNan
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.quant.block_grid import dequantize, fake_quantize, quantize
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.base import IntegerQuantizer, Quantizer
from qbench.quantizers.granularity import Granularity
from qbench.quantizers.hessian_mse import HessianWeightedError
from qbench.quantizers.layout import choose_grid, require_same
from qbench.registry import QUANTIZERS

PER_GROUP = {"per_group": 64}
PER_BLOCK = {"per_block": [100, 64]}


def absmax(granularity: object, *, symmetric: bool = True) -> AbsMax:
    return AbsMax.model_validate({"name": "absmax", "granularity": granularity, "symmetric": symmetric})


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


class Fixed(IntegerQuantizer):
    """A rule that returns what it is told, and remembers the blocks it was given."""

    scale: Annotated[float, AllowInfNan()] = 1.0  # what a rule may not return
    zero_point: Annotated[float, AllowInfNan()] = 0.0
    shape: tuple[int, ...] | None = None

    def choose_qparams(self, blocks: Tensor, grid: IntegerGrid) -> QParams:
        SEEN.append(blocks)
        shape = self.shape or (len(blocks), 1)
        return QParams(torch.full(shape, self.scale), torch.full(shape, self.zero_point))


SEEN: list[Tensor] = []


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("per_tensor", (1, 1)), ("per_channel", (256, 1)), (PER_GROUP, (256, 6)), (PER_BLOCK, (3, 6))],
)
def test_shapes_of_the_scales(granularity: object, shape: tuple[int, int]) -> None:
    grid = choose_grid(drawn(256, 344), absmax(granularity), 4)
    assert grid.scale.shape == grid.zero_point.shape == shape
    assert grid.levels == IntegerGrid(4, symmetric=True)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_ragged_matrix_is_quantized_as_its_pieces_are(symmetric: bool) -> None:
    weight = drawn(256, 344)
    pieces = weight.split(64, dim=1)
    assert pieces[-1].shape[1] == 24
    apart = [
        fake_quantize(piece, choose_grid(piece, absmax("per_channel", symmetric=symmetric), 3)) for piece in pieces
    ]
    grid = choose_grid(weight, absmax(PER_GROUP, symmetric=symmetric), 3)
    assert torch.equal(fake_quantize(weight, grid), torch.cat(apart, dim=1))


def by_hand(weight: Tensor, rule: Quantizer, height: int, width: int, bits: int) -> Tensor:
    """Quantize each tile as a matrix of its own."""
    alone = rule.model_copy(update={"granularity": Granularity(kind="per_tensor")})

    def quantized(tile: Tensor) -> Tensor:
        return fake_quantize(tile, choose_grid(tile, alone, bits))

    bands = (torch.cat([quantized(tile) for tile in band.split(width, dim=1)], dim=1) for band in weight.split(height))
    return torch.cat(list(bands))


@pytest.mark.parametrize(
    ("height", "width"), [(8, 16), (8, 15), (7, 16), (7, 15), (1, 16), (24, 1), (24, 48), (100, 16), (7, 100)]
)
@pytest.mark.parametrize("name", ["absmax", "mse", "nf", "seq", "hqq"])
def test_tiles_are_quantized_as_if_they_stood_alone(name: str, height: int, width: int) -> None:
    """The matrix has 24 x 48 weights: tiles fill it, are left over at the right, below, or both, or are larger."""
    weight = drawn(24, 48)
    granularity = {"per_block": [height, width]}
    rule = QUANTIZERS.get(name).model_validate({"name": name, "granularity": granularity})
    assert isinstance(rule, Quantizer)
    grid = choose_grid(weight, rule, 3)
    assert grid.scale.shape == (-(-24 // min(height, 24)), -(-48 // min(width, 48)))
    expected = by_hand(weight, rule, height, width, 3)
    # A real zero point is a mean, and so a sum, which may be added up in another order.
    close = {"rtol": 0, "atol": 0} if name != "hqq" else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(fake_quantize(weight, grid), expected, **close)
    codes = quantize(weight, grid)
    assert torch.equal(dequantize(codes, grid), fake_quantize(weight, grid))


@pytest.mark.parametrize(("height", "width"), [(8, 16), (7, 15)])
def test_a_tile_meets_its_own_inputs(height: int, width: int) -> None:
    weight, inputs = drawn(24, 48), drawn(1, 48).square()
    options = {"name": "hessian_mse", "granularity": {"per_block": [height, width]}}
    grid = choose_grid(weight, HessianWeightedError.model_validate(options), 3, inputs)
    whole = HessianWeightedError.model_validate({"name": "hessian_mse", "granularity": "per_tensor"})
    for row, band in enumerate(weight.split(height)):
        for column, (tile, own) in enumerate(zip(band.split(width, dim=1), inputs.split(width, dim=1), strict=True)):
            assert grid.scale[row, column] == choose_grid(tile, whole, 3, own).scale


@pytest.mark.parametrize(
    ("granularity", "same"), [("per_channel", [1, 48]), ("per_tensor", [24, 48]), (PER_GROUP, [1, 64])]
)
def test_tiles_of_one_row_or_all_rows_are_the_other_granularities(granularity: object, same: list[int]) -> None:
    weight = drawn(24, 48)
    one, other = (choose_grid(weight, absmax(kind), 4) for kind in (granularity, {"per_block": same}))
    assert torch.equal(one.scale, other.scale)
    assert torch.equal(fake_quantize(weight, one), fake_quantize(weight, other))


@pytest.mark.parametrize(("height", "width"), [(8, 16), (7, 15)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_tiles_store_a_scale_each(height: int, width: int, symmetric: bool) -> None:
    grid = choose_grid(drawn(24, 48), absmax({"per_block": [height, width]}, symmetric=symmetric), 3)
    tiles = -(-24 // height) * -(-48 // width)
    assert grid.stored_bits(24, 48) == 3 * 24 * 48 + tiles * (32 if symmetric else 35)


@pytest.mark.parametrize("size", [40, 41, 1000])
def test_a_group_as_wide_as_the_row_is_the_row(size: int) -> None:
    weight = drawn(6, 40)
    by_group, by_row = (choose_grid(weight, absmax(kind), 4) for kind in ({"per_group": size}, "per_channel"))
    assert torch.equal(fake_quantize(weight, by_group), fake_quantize(weight, by_row))


def test_groups_of_one_have_a_scale_each() -> None:
    weight = drawn(6, 5)
    grid = choose_grid(weight, absmax({"per_group": 1}, symmetric=False), 2)
    assert grid.scale.shape == (6, 5)
    torch.testing.assert_close(fake_quantize(weight, grid), weight)


@pytest.mark.parametrize(
    ("granularity", "cuts"),
    [
        ("per_tensor", lambda w: [w.reshape(1, -1)]),
        ("per_channel", lambda w: [w]),
        (
            {"per_block": [2, 4]},
            lambda w: [
                torch.stack([w[:2, :4].flatten(), w[:2, 4:8].flatten()]),
                w[:2, 8:].reshape(1, -1),
                torch.stack([w[2, :4], w[2, 4:8]]),
                w[2:, 8:],
            ],
        ),
        (
            {"per_group": 4},
            lambda w: [torch.stack([part for row in w for part in (row[:4], row[4:8])]), w[:, 8:]],
        ),
    ],
)
def test_a_rule_sees_one_block_a_row(granularity: object, cuts: object) -> None:
    SEEN.clear()
    weight = drawn(3, 10)
    choose_grid(weight, Fixed.model_validate({"name": "fixed", "granularity": granularity}), 4)
    assert [block.tolist() for block in SEEN] == [block.tolist() for block in cuts(weight)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_grid_is_float32_and_has_no_gradient(dtype: torch.dtype) -> None:
    grid = choose_grid(nn.Parameter(drawn(4, 8).to(dtype)), absmax("per_channel", symmetric=False), 4)
    assert grid.scale.dtype == grid.zero_point.dtype == torch.float32
    assert not grid.scale.requires_grad


def test_what_a_rule_returns_in_another_type_becomes_float32() -> None:
    class Wide(Quantizer):
        def choose_qparams(self, blocks: Tensor, grid: IntegerGrid) -> QParams:
            return QParams(
                torch.ones(len(blocks), 1, dtype=torch.float64), torch.zeros(len(blocks), 1, dtype=torch.int32)
            )

    grid = choose_grid(drawn(4, 8), Wide(name="wide"), 4)
    assert grid.scale.dtype == grid.zero_point.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weight = drawn(4, 8)
    weight[2, 3] = value
    with pytest.raises(CellError) as caught:
        choose_grid(weight, absmax("per_channel"), 4)
    assert str(caught.value) == "weight of shape (4, 8) holds NaN or infinite values: it cannot be quantized"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rule_with_a_bad_scale_is_named(scale: float) -> None:
    with pytest.raises(CellError) as caught:
        choose_grid(drawn(4, 8), Fixed(name="percentile", scale=scale), 4)
    assert str(caught.value) == "quantizer 'percentile' returned a scale that is not a positive finite number"


@pytest.mark.parametrize(
    ("zero_point", "symmetric", "allowed"),
    [
        (0.5, False, "an integer from 0 to 15"),
        (16.0, False, "an integer from 0 to 15"),
        (-1.0, False, "an integer from 0 to 15"),
        (float("nan"), False, "an integer from 0 to 15"),
        (1.0, True, "0, as on this symmetric grid"),
    ],
)
def test_a_rule_with_a_bad_zero_point_is_named(zero_point: float, symmetric: bool, allowed: str) -> None:
    with pytest.raises(CellError) as caught:
        choose_grid(drawn(4, 8), Fixed(name="percentile", zero_point=zero_point, symmetric=symmetric), 4)
    assert str(caught.value) == f"quantizer 'percentile' returned a zero point that is not {allowed}"


class OwnLevels(AbsMax):
    """A quantizer with levels of any kind."""

    def levels(self, bits: int) -> Any:
        return LEVELS[0]


LEVELS: list[Any] = [5]


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (5, "levels(2) returned int (allowed: IntegerGrid, LevelTable or Codebook)"),
        (LevelTable(8, (-1.0, 0.0, 1.0)), "levels(2) returned levels of 8 bits"),
        (LevelTable(3, (-2.0, -1.0, 0.0, 1.0, 2.0)), "has 5 levels, more than 2 bits can tell"),
    ],
    ids=["no levels", "other bits", "too many"],
)
def test_levels_that_are_none_of_so_many_bits_are_refused(levels: Any, said: str) -> None:
    LEVELS[0] = levels
    with pytest.raises(CellError) as caught:
        choose_grid(drawn(4, 8), OwnLevels(name="own"), 2)
    assert str(caught.value).startswith("quantizer 'own'") and said in str(caught.value)


def test_levels_that_are_drawn_anew_are_noticed() -> None:
    weight, rule = drawn(4, 8), OwnLevels(name="own")
    LEVELS[0] = LevelTable(2, (-1.0, 0.0, 1.0))
    first, again = (choose_grid(weight, rule, 2) for _ in "ab")
    require_same(first, again, rule)
    LEVELS[0] = LevelTable(2, (-1.0, 0.1, 1.0))
    with pytest.raises(CellError, match="gave another grid for the same weight"):
        require_same(first, choose_grid(weight, rule, 2), rule)


@pytest.mark.parametrize("shape", [(4,), (1, 1), (4, 2)])
def test_a_rule_with_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(CellError) as caught:
        choose_grid(drawn(4, 8), Fixed(name="percentile", shape=shape), 4)
    assert str(caught.value) == (
        f"quantizer 'percentile' returned shapes {shape} and {shape}, expected (4, 1) for both"
    )

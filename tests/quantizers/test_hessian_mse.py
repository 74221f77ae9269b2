"""The search weighed by the inputs."""

from __future__ import annotations

import pytest
import torch

from qbench.errors import CellError
from qbench.quant.block_grid import fake_quantize
from qbench.quant.grid import IntegerGrid
from qbench.quantizers.hessian_mse import HessianWeightedError
from qbench.quantizers.layout import choose_grid
from qbench.quantizers.mse import MeanSquaredError
from qbench.registry import QUANTIZERS

GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(16, 60, generator=GENERATOR) ** 3
INPUTS = torch.rand(1, 60, generator=GENERATOR) ** 4
RULE = HessianWeightedError(name="hessian_mse")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weight", [2.0**-20, 1.0, 32.0])
def test_equal_weights_are_no_weights(bits: int, symmetric: bool, weight: float) -> None:
    grid, equal = IntegerGrid(bits, symmetric), torch.full_like(WEIGHT, weight)
    found = RULE.choose_qparams(WEIGHT, grid, equal)
    expected = MeanSquaredError(name="mse").choose_qparams(WEIGHT, grid)
    assert torch.equal(found.scale, expected.scale)
    assert torch.equal(found.zero_points(), expected.zero_points())
    assert torch.equal(RULE.choose_qparams(WEIGHT, grid).scale, expected.scale)


@pytest.mark.parametrize(
    "granularity", ["per_tensor", "per_channel", {"per_group": 16}, {"per_block": [5, 16]}], ids=str
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_are_closer_than_with_the_plain_search(granularity: object, symmetric: bool) -> None:
    options = {"granularity": granularity, "symmetric": symmetric}
    errors = {}
    for name in ("mse", "hessian_mse"):
        rule = QUANTIZERS.get(name).model_validate({"name": name, **options})
        quantized = fake_quantize(WEIGHT, choose_grid(WEIGHT, rule, 2, INPUTS))  # type: ignore[arg-type]
        errors[name] = float(((quantized - WEIGHT).square() * INPUTS).sum())
    assert errors["hessian_mse"] < 0.95 * errors["mse"]


def test_each_weight_meets_its_own_input() -> None:
    """Group by group, the weighed search sees the columns of the group."""
    rule = HessianWeightedError.model_validate({"name": "hessian_mse", "granularity": {"per_group": 16}})
    grid = choose_grid(WEIGHT, rule, 3, INPUTS)
    for index, columns in enumerate((slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 60))):
        alone = choose_grid(WEIGHT[:, columns], RULE, 3, INPUTS[:, columns])
        assert torch.equal(grid.scale[:, index], alone.scale[:, 0])


def test_inputs_that_nothing_meets_leave_the_full_range() -> None:
    grid = choose_grid(WEIGHT, RULE, 2, torch.zeros(1, 60))
    torch.testing.assert_close(grid.scale * 1.5, WEIGHT.abs().amax(dim=1, keepdim=True))


def test_without_inputs_there_is_no_grid() -> None:
    with pytest.raises(CellError) as caught:
        choose_grid(WEIGHT, RULE, 4)
    assert str(caught.value) == "quantizer 'hessian_mse' needs the inputs of a layer, which are not known here"

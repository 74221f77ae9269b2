"""GPTQ against Optimal Brain Quantization written out in the same order of columns, and against hand results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.methods.gptq import GPTQ
from qbench.methods.gptq_scales import StaticScales
from qbench.methods.gptq_solver import feedback, gptq_values
from qbench.methods.gptq_stage import solve_stage
from qbench.methods.stage import Gram, Stage
from qbench.quant.block_grid import BlockGrid, dequantize, quantize
from qbench.quant.grid import IntegerGrid

MakeStage = Callable[..., Stage]


def options(**changed: Any) -> GPTQ:
    return GPTQ.model_validate({"name": "gptq", "act_order": False, **changed})


GRIDS = {
    "per_tensor": {"granularity": "per_tensor"},
    "per_channel": {"granularity": "per_channel"},
    "asymmetric": {"granularity": "per_channel", "symmetric": False},
    "ragged groups": {"granularity": {"per_group": 10}, "symmetric": False},
}


def optimal_brain_quantization(weight: Tensor, hessian: Tensor, grid: BlockGrid, order: list[int]) -> Tensor:
    """Return codes by the published greedy step: quantize a column, compensate, eliminate it from the inverse."""
    weight, inverse = weight.double().clone(), torch.linalg.inv(hessian.double())
    scale, zero_point = (part.double().expand_as(weight) for part in grid.by_column(weight.shape[1]))
    codes = torch.empty_like(weight)
    left = list(order)
    for column in order:
        code = torch.round(weight[:, column] / scale[:, column]) + zero_point[:, column]
        codes[:, column] = code.clamp(grid.levels.quant_min, grid.levels.quant_max)
        value = (codes[:, column] - zero_point[:, column]) * scale[:, column]
        error = (weight[:, column] - value) / inverse[column, column]
        left.remove(column)
        weight[:, left] -= error[:, None] * inverse[column, left]
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes


def damped(hessian: Tensor, percdamp: float) -> Tensor:
    return hessian + percdamp * hessian.diagonal().mean() * torch.eye(len(hessian))


def in_float64(stage: Stage) -> tuple[Tensor, Tensor, BlockGrid]:
    layer = stage.layers[0]
    grid = BlockGrid(
        layer.grid.levels, layer.grid.scale.double(), layer.grid.zero_point.double(), layer.grid.group_size
    )
    return layer.module.weight.detach().double(), stage.gram.hessian[0].double(), grid


def solved(weight: Tensor, hessian: Tensor, grid: BlockGrid, percdamp: float, block_size: int) -> Tensor:
    """Return the codes of one matrix, its columns as they stand."""
    fed = feedback(hessian[None], percdamp)
    assert not fed.failed.any() and fed.damping.item() == pytest.approx(percdamp)
    stacked = dataclasses.replace(grid, scale=grid.scale[None], zero_point=grid.zero_point[None])
    scales = StaticScales(stacked, torch.arange(weight.shape[1])[None], block_size)
    values = gptq_values(weight.T[None].contiguous(), scales, fed.weights, scales.widths)
    return scales.grid.codes(values)[0].T


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("columns", [4, 12, 37])
@pytest.mark.parametrize("block_size", [1, 5, 128])
def test_is_optimal_brain_quantization_in_a_fixed_order(
    make_stage: MakeStage, bits: int, columns: int, block_size: int
) -> None:
    weight, hessian, grid = in_float64(make_stage(6, columns=columns, bits=bits, symmetric=False))
    codes = solved(weight, hessian, grid, 0.01, block_size)
    assert torch.equal(codes, optimal_brain_quantization(weight, damped(hessian, 0.01), grid, list(range(columns))))
    assert not torch.equal(codes, quantize(weight, grid))


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("block_size", [7, 128])
def test_a_stage_is_solved_layer_by_layer_on_its_own_grid(
    make_stage: MakeStage, act_order: bool, grid: dict[str, Any], block_size: int
) -> None:
    stage = make_stage(6, 3, columns=37, **grid)
    hessian = stage.gram.hessian[0]
    order = hessian.diagonal().argsort(descending=True).tolist() if act_order else list(range(37))
    assert (order != list(range(37))) == act_order
    found = solve_stage(stage, options(block_size=block_size, act_order=act_order))
    assert list(found) == ["layer0", "layer1"]
    for layer in stage.layers:
        expected = optimal_brain_quantization(layer.module.weight.detach(), damped(hessian, 0.01), layer.grid, order)
        assert torch.equal(found[layer.name].codes, expected.float())
        assert found[layer.name].grid is layer.grid
        assert found[layer.name].fallback is None and found[layer.name].damping == pytest.approx(0.01)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_the_block_size_changes_nothing(make_stage: MakeStage, grid: dict[str, Any]) -> None:
    stage = make_stage(6, columns=37, bits=2, **grid)
    all_codes = [
        solve_stage(stage, options(block_size=size, act_order=True))["layer0"].codes
        for size in (1, 2, 10, 36, 37, 38, 500)
    ]
    assert all(torch.equal(codes, all_codes[0]) for codes in all_codes)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_two_curvatures_by_hand(order: list[int]) -> None:
    """The error of one weight moves the other by 0.998 of it, to its other side: 4.55, 2.45 become 5, 2."""
    along, across = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    hessian = 1e-2 * torch.outer(along, along) + 1e-5 * torch.outer(across, across)
    levels = IntegerGrid(4, symmetric=False)
    grid = BlockGrid(levels, torch.ones(1, 1).double(), torch.zeros(1, 1).double(), 2)
    weight = torch.tensor([[4.55, 2.45]], dtype=torch.float64)
    reordered = hessian[order][:, order]
    codes = solved(weight[:, order], reordered, grid, 1e-9, 128)
    assert codes[:, order].tolist() == [[5.0, 2.0]]
    # The second weight as the first one leaves it: 2.45 - 0.45 * 0.998, or 4.55 + 0.45 * 0.998.
    passed_on = feedback(reordered[None], 1e-9).weights[0, 0, 1]
    moved = weight[0, order[1]] + (weight[0, order[0]] - codes[0, 0]) * passed_on
    assert moved.item() == pytest.approx([2.0009, 4.9991][order[0]], abs=1e-4)


def test_independent_inputs_leave_rounding_to_nearest(make_stage: MakeStage) -> None:
    stage = make_stage(6, columns=37)
    diagonal = (torch.rand(37).diag() + 0.1 * torch.eye(37))[None]
    stage = dataclasses.replace(stage, gram=Gram(diagonal, diagonal, diagonal))
    layer = stage.layers[0]
    for act_order in (False, True):
        codes = solve_stage(stage, options(act_order=act_order))["layer0"].codes
        assert torch.equal(codes, quantize(layer.module.weight.detach(), layer.grid))


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("act_order", [False, True])
def test_the_layer_error_is_below_that_of_rounding_to_nearest(
    make_stage: MakeStage, bits: int, seed: int, act_order: bool
) -> None:
    found = solve_stage(make_stage(32, columns=64, bits=bits, seed=seed), options(act_order=act_order))
    assert 0 < found["layer0"].objective < 0.7 * found["layer0"].rtn_objective


def test_the_objective_is_the_relative_output_error(make_stage: MakeStage) -> None:
    stage = make_stage(6, 3, columns=37)
    hessian = stage.gram.hessian[0].double()

    def power(matrix: Tensor) -> float:
        return float((matrix @ hessian @ matrix.T).trace())

    for layer, found in zip(stage.layers, solve_stage(stage, options()).values(), strict=True):
        weight = layer.module.weight.detach().double()
        nearest = dequantize(quantize(weight.float(), layer.grid), layer.grid)
        assert found.objective == pytest.approx(power(weight - found.weight()) / power(weight), rel=1e-4)
        assert found.rtn_objective == pytest.approx(power(weight - nearest) / power(weight), rel=1e-4)


@pytest.mark.parametrize("act_order", [False, True])
def test_dead_columns_become_zero_and_leave_the_others_alone(make_stage: MakeStage, act_order: bool) -> None:
    stage = make_stage(6, columns=20, symmetric=False)
    layer, dead = stage.layers[0], torch.tensor([3, 11, 19])
    hessian = stage.gram.hessian.clone()
    hessian[:, dead], hessian[:, :, dead] = 0.0, 0.0
    silenced = dataclasses.replace(stage, gram=Gram(hessian, hessian, hessian))
    found = solve_stage(silenced, options(percdamp=1e-6, act_order=act_order))["layer0"]
    assert found.details["dead_columns"] == 3 and found.fallback is None
    assert found.weight()[:, dead].count_nonzero() == 0

    alive = [column for column in range(20) if column not in dead.tolist()]
    within = hessian[0][alive][:, alive]
    order = within.diagonal().argsort(descending=True).tolist() if act_order else list(range(17))
    weight = layer.module.weight.detach()[:, alive]
    expected = optimal_brain_quantization(weight, damped(within, 1e-6), layer.grid, order)
    assert torch.equal(found.codes[:, alive], expected.float())


def test_a_layer_without_any_input_is_rounded_to_nearest_and_says_so(make_stage: MakeStage) -> None:
    stage = make_stage(6, columns=20)
    nothing = torch.zeros(1, 20, 20)
    found = solve_stage(dataclasses.replace(stage, gram=Gram(nothing, nothing, nothing)), options())["layer0"]
    layer = stage.layers[0]
    assert found.fallback == "rtn: all inputs of the layer are 0"
    assert torch.equal(found.codes, quantize(layer.module.weight.detach(), layer.grid))
    assert found.objective == found.rtn_objective == 0


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("off_diagonal", [5.0, float("nan")])
def test_an_indefinite_hessian_falls_back_to_rounding_and_says_so(
    make_stage: MakeStage, act_order: bool, off_diagonal: float
) -> None:
    stage = make_stage(6, 2, columns=4)
    hessian = torch.eye(4)
    hessian[0, 1] = hessian[1, 0] = off_diagonal
    indefinite = dataclasses.replace(stage, gram=Gram(hessian[None], hessian[None], hessian[None]))
    found = solve_stage(indefinite, options(act_order=act_order))
    for layer in stage.layers:
        own = found[layer.name]
        assert own.fallback == "rtn: the Hessian is not positive definite at any damping up to 1"
        assert own.damping is None
        assert torch.equal(own.codes, quantize(layer.module.weight.detach(), layer.grid))


@pytest.mark.parametrize(("off_diagonal", "damping"), [(0.5, 0.01), (1.05, 0.1), (1.5, 1.0)])
def test_damping_grows_tenfold_until_it_is_enough(off_diagonal: float, damping: float) -> None:
    hessian = torch.tensor([[1.0, off_diagonal], [off_diagonal, 1.0]])
    fed = feedback(hessian[None], 0.01)
    assert fed.damping.item() == pytest.approx(damping) and not fed.failed
    # What GPTQ passes on is written with the factor U of the inverse, H^-1 = U^T U, as -U_ij / U_ii.
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian + damping * torch.eye(2)), upper=True)
    torch.testing.assert_close(fed.weights[0], torch.tensor([[1.0, float(-upper[0, 1] / upper[0, 0])], [0.0, 1.0]]))
    assert feedback(torch.tensor([[[1.0, 2.5], [2.5, 1.0]]]), 0.01).failed


def test_matrices_of_a_stack_are_damped_one_by_one() -> None:
    hessians = torch.stack([torch.tensor([[1.0, x], [x, 1.0]]) for x in (0.5, 1.05, 2.5)])
    fed = feedback(hessians, 0.01)
    assert fed.damping.tolist() == pytest.approx([0.01, 0.1, 1.0]) and fed.failed.tolist() == [False, False, True]
    for index in (0, 1):
        torch.testing.assert_close(fed.weights[index], feedback(hessians[index, None], 0.01).weights[0])


@pytest.mark.parametrize("percdamp", [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
def test_the_last_damping_is_one(percdamp: float) -> None:
    fed = feedback(torch.tensor([[[1.0, 1.9], [1.9, 1.0]]]), percdamp)
    assert fed.damping.item() == pytest.approx(1.0) and not fed.failed


def test_the_weights_and_the_hessian_are_left_as_they_were(make_stage: MakeStage) -> None:
    stage = make_stage(6, columns=20)
    weight, hessian = stage.layers[0].module.weight.detach().clone(), stage.gram.hessian.clone()
    solve_stage(stage, options(act_order=True))
    assert torch.equal(stage.layers[0].module.weight, weight) and torch.equal(stage.gram.hessian, hessian)


def test_layers_of_a_stage_do_not_see_each_other(make_stage: MakeStage) -> None:
    stage = make_stage(6, 3, columns=20, granularity="per_tensor")
    together = solve_stage(stage, options())
    for layer in stage.layers:
        alone = solve_stage(Stage(((layer,),), stage.gram), options())
        assert torch.equal(together[layer.name].codes, alone[layer.name].codes)
        assert together[layer.name].objective == pytest.approx(alone[layer.name].objective, rel=1e-5)

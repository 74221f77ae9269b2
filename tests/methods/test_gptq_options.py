"""GPTQ's variants: the order of columns, fresh scales of groups, inputs, coordinate descent, odd shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from qbench.errors import CellError
from qbench.methods import coordinate_descent
from qbench.methods.gptq import GPTQ
from qbench.methods.gptq_scales import column_order
from qbench.methods.gptq_stage import solve_stage
from qbench.methods.matrices import to_matrix
from qbench.methods.ordered_grid import OrderedGrid
from qbench.methods.problem import Problem, TargetLayer
from qbench.methods.sequential import walk
from qbench.methods.stage import Gram, Stage
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid

MakeProblem = Callable[..., Problem]
MakeStage = Callable[..., Stage]


def options(**changed: Any) -> GPTQ:
    return GPTQ.model_validate({"name": "gptq", **changed})


def error_of(stage: Stage, found: dict[str, Any]) -> float:
    return sum(solution.objective for solution in found.values())


@pytest.mark.parametrize(
    "given",
    [
        {"group_scales": "fresh"},
        {"group_scales": "fresh", "act_order": True},
        {"inputs": "full_precision", "true_sequential": True},
        {"cd_sweeps": -1},
        {"act_order": "natural"},
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**given)


def test_group_aware_order_keeps_groups_whole() -> None:
    diagonal = torch.tensor([[1.0, 5.0, 2.0, 9.0, 8.0, 1.0, 3.0]])
    order = column_order(diagonal.diag_embed(), "group_aware", 3)
    # Means of the groups: 8/3, 6, and 3 of the short one, which stays last.
    assert order.tolist() == [[3, 4, 5, 1, 2, 0, 6]]
    assert column_order(diagonal.diag_embed(), True, 3).tolist() == [[3, 4, 1, 6, 2, 0, 5]]
    assert column_order(diagonal.diag_embed(), False, 3).tolist() == [list(range(7))]


def by_the_book(weight: Tensor, hessian: Tensor, rule: Quantizer, bits: int, size: int) -> tuple[Tensor, Tensor]:
    """Return weights and scales of GPTQ whose groups get their range when they are come to, column by column."""
    weight, n = weight.double().clone(), weight.shape[1]
    damped = hessian.double() + 0.01 * hessian.double().diagonal().mean() * torch.eye(n)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    quantized, scales = torch.empty_like(weight), []
    for column in range(n):
        if column % size == 0:
            grid = choose_grid(weight[:, column : column + size].float(), rule, bits)
            scales.append(grid.scale)
        quantized[:, column] = fake_quantize(weight[:, column, None].float(), grid)[:, 0].double()
        error = (weight[:, column] - quantized[:, column]) / upper[column, column]
        weight[:, column + 1 :] -= torch.outer(error, upper[column, column + 1 :])
    return quantized.float(), torch.cat(scales, dim=1)


@pytest.mark.parametrize("quantizer", ["absmax", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [32, 37])
def test_fresh_scales_are_those_of_the_weights_as_they_have_become(
    make_stage: MakeStage, quantizer: str, symmetric: bool, columns: int
) -> None:
    grid = {"quantizer": quantizer, "symmetric": symmetric, "granularity": {"per_group": 8}}
    stage = make_stage(6, columns=columns, bits=3, **grid)
    layer = stage.layers[0]
    found = solve_stage(stage, options(group_scales="fresh", act_order=False))["layer0"]
    expected, scales = by_the_book(layer.matrix(), stage.gram.hessian[0], layer.quantizer, 3, 8)  # type: ignore[arg-type]
    # A weight next to a tie may round the other way in float32, and moves what comes after it in its row.
    rows = torch.isclose(found.grid.scale, scales, rtol=1e-3).all(dim=1)
    assert rows.sum() >= 5
    torch.testing.assert_close(found.weight()[rows], expected[rows], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found.grid.scale, layer.grid.scale, rtol=1e-2)


def test_fresh_scales_of_the_first_group_are_the_given_ones(make_stage: MakeStage) -> None:
    stage = make_stage(6, 3, columns=32, granularity={"per_group": 8})
    found = solve_stage(stage, options(group_scales="fresh", act_order=False))
    for layer in stage.layers:
        assert torch.equal(found[layer.name].grid.scale[:, 0], layer.grid.scale[:, 0])


def test_fresh_scales_follow_groups_in_their_order(make_stage: MakeStage) -> None:
    stage = make_stage(6, columns=37, granularity={"per_group": 8})
    found = solve_stage(stage, options(group_scales="fresh", act_order="group_aware"))["layer0"]
    first = int(column_order(stage.gram.hessian, "group_aware", 8)[0, 0]) // 8
    given = stage.layers[0].grid.scale
    same = [bool(torch.equal(found.grid.scale[:, group], given[:, group])) for group in range(5)]
    assert same == [group == first for group in range(5)]


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_without_groups_there_is_nothing_to_choose_afresh(make_stage: MakeStage, granularity: str) -> None:
    stage = make_stage(6, columns=37, granularity=granularity)
    fresh, static = (
        solve_stage(stage, options(group_scales=scales, act_order=False))["layer0"] for scales in ("fresh", "static")
    )
    assert torch.equal(fresh.codes, static.codes) and fresh.grid is static.grid


def test_fresh_scales_need_the_quantizer(make_stage: MakeStage) -> None:
    stage = make_stage(6, columns=32, granularity={"per_group": 8})
    bare = tuple(dataclasses.replace(layer, quantizer=None) for layer in stage.layers)
    with pytest.raises(CellError, match=r"^group_scales: fresh needs the quantizer"):
        solve_stage(Stage((bare,), stage.gram), options(group_scales="fresh", act_order=False))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("granularity", ["per_channel", {"per_group": 10}])
@pytest.mark.parametrize("symmetric", [True, False])
def test_coordinate_descent_lowers_the_error(
    make_stage: MakeStage, bits: int, granularity: Any, symmetric: bool
) -> None:
    stage = make_stage(24, 8, columns=48, bits=bits, granularity=granularity, symmetric=symmetric)
    errors = [error_of(stage, solve_stage(stage, options(cd_sweeps=sweeps))) for sweeps in (0, 1, 2, 5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]
    found = solve_stage(stage, options(cd_sweeps=5))
    gain = found["layer0"].details["cd_gain"]
    assert 0 < gain < 1


@pytest.mark.parametrize("block_size", [1, 5, 48, 128])
def test_after_enough_sweeps_no_weight_can_be_bettered_alone(make_stage: MakeStage, block_size: int) -> None:
    stage = make_stage(8, columns=24, bits=3)
    grid, weight, hessian = stage.grid(), stage.weight(), stage.gram.hessian
    scale, zero_point = (part.mT for part in grid.by_column(24))
    start, ordered = torch.zeros(1, 24, 8), OrderedGrid.of(grid, torch.arange(24)[None])
    values = coordinate_descent.descend(weight.mT, start, hessian, ordered, sweeps=50, block_size=block_size)
    codes = ordered.codes(values)
    wanted = weight.mT - (codes - zero_point) * scale
    least = (wanted * (hessian @ wanted)).sum(dim=1)
    for column in range(24):
        for level in range(grid.levels.quant_min, grid.levels.quant_max + 1):
            other = codes.clone()
            other[:, column] = level
            errors = weight.mT - (other - zero_point) * scale
            assert ((errors * (hessian @ errors)).sum(dim=1) >= least - 1e-4 * least.abs()).all()


def test_a_sweep_over_codes_that_cannot_be_bettered_changes_nothing(make_stage: MakeStage) -> None:
    stage = make_stage(8, columns=24, bits=3)
    diagonal = torch.rand(1, 24).add(0.1).diag_embed()
    codes = solve_stage(dataclasses.replace(stage, gram=Gram(diagonal, diagonal, diagonal)), options(cd_sweeps=3))
    nearest = solve_stage(dataclasses.replace(stage, gram=Gram(diagonal, diagonal, diagonal)), options())
    assert torch.equal(codes["layer0"].codes, nearest["layer0"].codes)


def test_full_precision_inputs_are_those_of_the_model_as_it_was(make_problem: MakeProblem) -> None:
    untouched = {
        layer.name: stage.gram.hessian
        for stage in walk(make_problem(bits=2), true_sequential=False)
        for layer in stage.layers
    }
    problem = make_problem(bits=2)
    for stage in walk(problem, true_sequential=False, quantized_inputs=False):
        for layer in stage.layers:
            torch.testing.assert_close(stage.gram.hessian, untouched[layer.name])
            layer.write(fake_quantize(layer.matrix(), layer.grid))
    found = options(inputs="full_precision").solve(make_problem(bits=2))
    other = options().solve(make_problem(bits=2))
    same = [bool(torch.equal(found.layers[name].codes, other.layers[name].codes)) for name in found.layers]
    assert all(same[:4]) and not all(same[7:])


@pytest.mark.parametrize(
    "weight",
    # Seeded: GPTQ is greedy, and on so small a layer it may fall behind rounding to nearest on some draws.
    [
        torch.zeros(4, 20),
        torch.ones(4, 20),
        torch.full((4, 20), -2.5),
        torch.randn(1, 20, generator=torch.Generator().manual_seed(0)),
        torch.randn(4, 1, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["zeros", "ones", "constant", "one row", "one column"],
)
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", {"per_group": 8}])
@pytest.mark.parametrize("changed", [{}, {"cd_sweeps": 2}, {"group_scales": "fresh", "act_order": False}])
def test_odd_weights(make_stage: MakeStage, weight: Tensor, granularity: Any, changed: dict[str, Any]) -> None:
    stage = make_stage(len(weight), columns=weight.shape[1], granularity=granularity)
    layer = stage.layers[0]
    layer.module.weight.data = weight.clone()  # type: ignore[union-attr]
    layer = dataclasses.replace(layer, grid=choose_grid(weight, layer.quantizer, 3))  # type: ignore[arg-type]
    found = solve_stage(Stage(((layer,),), stage.gram), options(**changed))["layer0"]
    assert torch.isfinite(found.codes).all() and found.fallback is None
    assert found.objective is not None and found.rtn_objective is not None
    if "group_scales" not in changed:  # other scales may be worse than the given ones
        assert found.objective <= found.rtn_objective * 1.001 + 1e-12
    if not weight.any():
        assert not found.weight().any()


def test_a_transposed_layer_is_solved_like_a_linear_one(make_stage: MakeStage) -> None:
    stage = make_stage(6, columns=20)
    layer = stage.layers[0]
    transposed = Conv1D(6, 20)
    transposed.weight.data = layer.matrix().T.contiguous()
    grid = choose_grid(to_matrix(transposed, transposed.weight.detach()), layer.quantizer, 3)  # type: ignore[arg-type]
    twin = TargetLayer("layer0", transposed, grid, layer.quantizer)
    found, expected = (solve_stage(Stage(((one,),), stage.gram), options())["layer0"] for one in (twin, layer))
    assert torch.equal(found.codes, expected.codes)
    twin.write(found.weight())
    x = torch.randn(3, 20)
    torch.testing.assert_close(transposed(x) - transposed.bias, x @ expected.weight().T)


def test_a_bfloat16_model_is_solved_in_float32_and_deployed_in_its_own_type(make_problem: MakeProblem) -> None:
    problem = make_problem(bits=3)
    problem.model.to(torch.bfloat16)
    layers = [
        dataclasses.replace(layer, grid=choose_grid(layer.matrix(), layer.quantizer, 3))  # type: ignore[arg-type]
        for layer in problem.layers
    ]
    blocks = [
        dataclasses.replace(block, layers=tuple(layer for layer in layers if f".{index}." in layer.name))
        for index, block in enumerate(problem.blocks)
    ]
    problem = dataclasses.replace(problem, blocks=blocks)
    solution = options().solve(problem)
    solution.check(problem)
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert found.codes.dtype == found.grid.scale.dtype == torch.float32
        assert layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight, found.weight().bfloat16())
        assert found.objective < found.rtn_objective  # type: ignore[operator]


def test_what_is_kept_in_memory_does_not_grow_with_the_number_of_blocks(make_problem: MakeProblem) -> None:
    """Moments of a block are gone when the next one's are made."""
    import weakref

    problem = make_problem()
    alive: list[weakref.ref[Tensor]] = []
    most = 0
    for stage in walk(problem, true_sequential=True, full_precision_targets=True):
        alive.append(weakref.ref(stage.gram.hessian))
        del stage
        most = max(most, sum(reference() is not None for reference in alive))
    assert most <= 1

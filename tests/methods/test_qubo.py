"""Rounding as a binary problem, beside all corners of the box, one by one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.methods.problem import LayerSolution, Problem, TargetLayer
from qbench.methods.qubo import QuadraticRounding
from qbench.methods.qubo_solver import solve_stage
from qbench.methods.soft_rounding import Neighbours
from qbench.methods.stage import Gram, Stage
from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize, quantize
from qbench.quant.grid import IntegerGrid

MakeProblem = Callable[..., Problem]
MakeStage = Callable[..., Stage]

COLUMNS = 7
GRIDS: list[dict[str, Any]] = [
    {},
    {"bits": 2, "symmetric": False, "granularity": {"per_group": 3}},
    {"bits": 2, "quantizer": "mse", "granularity": "per_tensor"},
    {"quantizer": "nf"},
    {"quantizer": "kmeans", "bits": 2},
]
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)
each_seed = pytest.mark.parametrize("seed", range(6))
each_gram = pytest.mark.parametrize("inherited", [None, 0.3])


def qubo(**options: Any) -> QuadraticRounding:
    return QuadraticRounding.model_validate({"name": "qubo", **options})


def error(stage: Stage, row: Tensor, rounded: Tensor) -> Tensor:
    """Return ``E|w x_fp - q x|^2`` for candidates q of shape (..., n), in float64."""
    hessian, cross, target = (getattr(stage.gram, name)[0].double() for name in ("hessian", "cross", "target"))
    row, rounded = row.double(), rounded.double()
    own = (rounded @ hessian * rounded).sum(dim=-1)
    return own - 2 * rounded @ (cross.T @ row) + row @ target @ row


def neighbours(layer: TargetLayer) -> tuple[Tensor, Tensor]:
    """Return the two levels that each weight may have."""
    between = Neighbours.of(layer.matrix(), layer.grid)
    return dequantize(between.down, layer.grid), dequantize(between.up, layer.grid)


@each_grid
@each_seed
@each_gram
def test_it_lies_between_the_best_corner_and_rounding_to_nearest(
    make_stage: MakeStage, grid: dict[str, Any], seed: int, inherited: float | None
) -> None:
    stage = make_stage(3, columns=COLUMNS, seed=seed, inherited=inherited, **grid)
    (layer,) = stage.layers
    found = solve_stage(stage, qubo())[layer.name].weight()
    weight, (low, high) = layer.matrix(), neighbours(layer)
    corners = torch.tensor(list(itertools.product([False, True], repeat=COLUMNS)))
    for row in range(len(weight)):
        errors = error(stage, weight[row], torch.where(corners, high[row], low[row]))
        own = float(error(stage, weight[row], found[row]))
        nearest = float(error(stage, weight[row], fake_quantize(weight, layer.grid)[row]))
        slack = 1e-5 * nearest
        assert float(errors.min()) - slack <= own <= nearest + slack
        assert ((found[row] == low[row]) | (found[row] == high[row])).all()
        # And no flip of a single weight is better.
        for column in range(COLUMNS):
            flipped = found[row].clone()
            flipped[column] = low[row, column] if found[row, column] == high[row, column] else high[row, column]
            assert float(error(stage, weight[row], flipped)) >= own - slack


def test_it_is_mostly_the_best_corner_of_small_layers_and_rounding_to_nearest_is_not(make_stage: MakeStage) -> None:
    best, nearest, rows = 0, 0, 0
    corners = torch.tensor(list(itertools.product([False, True], repeat=COLUMNS)))
    for seed in range(10):
        stage = make_stage(4, columns=COLUMNS, seed=seed)
        (layer,) = stage.layers
        found, weight, (low, high) = solve_stage(stage, qubo())[layer.name].weight(), layer.matrix(), neighbours(layer)
        for row in range(len(weight)):
            least = float(error(stage, weight[row], torch.where(corners, high[row], low[row])).min())
            best += float(error(stage, weight[row], found[row])) <= least * (1 + 1e-5)
            nearest += float(error(stage, weight[row], fake_quantize(weight, layer.grid)[row])) <= least * (1 + 1e-5)
            rows += 1
    assert nearest < rows / 4 < rows / 2 < best


def two_weights(place: list[float], hessian: Tensor) -> LayerSolution:
    """Return the rounding of one row of two weights between whole numbers."""
    module = nn.Linear(2, 1, bias=False)
    module.weight.data = torch.tensor([place])
    ones = torch.ones(1, 1)
    layer = TargetLayer("row", module, BlockGrid(IntegerGrid(5, symmetric=True), ones, ones * 0, 2))
    return solve_stage(Stage(((layer,),), Gram(hessian, hessian, hessian)), qubo())["row"]


def test_two_weights_by_hand() -> None:
    along, across = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    # Errors along (1, 1) cost, those along (1, -1) nearly nothing: both weights up is 0.8 along, one of them 0.2.
    stiff = (torch.outer(along, along) + 1e-4 * torch.outer(across, across))[None]
    found = two_weights([4.6, 2.6], stiff)
    assert sorted([float(found.codes[0, 0]) - 4, float(found.codes[0, 1]) - 2]) == [0, 1]
    assert found.details["flipped"] == 0.5
    # With the curvature the other way both go up, as each does alone.
    soft = (1e-4 * torch.outer(along, along) + torch.outer(across, across))[None]
    assert two_weights([4.6, 2.6], soft).codes.tolist() == [[5.0, 3.0]]


def test_more_sweeps_are_no_worse_and_enough_are_enough(make_stage: MakeStage) -> None:
    errors = []
    for sweeps in (1, 2, 30, 60):
        stage = make_stage(16, 8, columns=48, bits=2)
        found = solve_stage(stage, qubo(sweeps=sweeps))
        errors.append([one.objective for one in found.values()])
        assert all(one.objective < one.rtn_objective for one in found.values())  # type: ignore[operator]
    assert errors[0] > errors[2] == errors[3]
    assert all(more <= fewer * (1 + 1e-6) for fewer, more in itertools.pairwise(sum(one) for one in errors))


@pytest.mark.parametrize(
    "options", [{}, {"inputs": "quantized"}, {"inputs": "full_precision", "true_sequential": False}], ids=str
)
def test_a_model_is_solved_layer_by_layer(make_problem: MakeProblem, options: dict[str, Any]) -> None:
    problem = make_problem()
    solution = qubo(**options).solve(problem)
    solution.check(problem)
    assert solution.calibration_tokens == problem.calibration_tokens
    plain = {layer.name: layer for layer in make_problem().layers}
    for name, found in solution.layers.items():
        assert found.objective is not None and found.rtn_objective is not None
        assert found.objective <= found.rtn_objective * (1 + 1e-5)
        changed = found.codes != quantize(plain[name].matrix(), plain[name].grid)
        assert found.details["flipped"] == pytest.approx(float(changed.float().mean())) != 0
        assert torch.equal(problem.model.get_submodule(name).weight, found.weight())
        low, high = neighbours(plain[name])
        assert ((found.weight() == low) | (found.weight() == high)).all()


def test_inputs_are_those_that_were_asked_for(make_problem: MakeProblem) -> None:
    found = {
        inputs: qubo(inputs=inputs, true_sequential=False).solve(make_problem(bits=2))
        for inputs in ("asymmetric", "quantized", "full_precision")
    }
    for one, other in itertools.combinations(found.values(), 2):
        assert any(not torch.equal(layer.codes, other.layers[name].codes) for name, layer in one.layers.items())


def test_a_layer_without_input_is_rounded_to_nearest(make_stage: MakeStage) -> None:
    stage = make_stage(4, columns=COLUMNS)
    nothing = torch.zeros_like(stage.gram.hessian)
    (layer,) = stage.layers
    found = solve_stage(dataclasses.replace(stage, gram=Gram(nothing, nothing, nothing)), qubo())[layer.name]
    assert torch.equal(found.codes, quantize(layer.matrix(), layer.grid))
    assert found.fallback == "rtn: all inputs of the layer are 0" and found.details["flipped"] == 0

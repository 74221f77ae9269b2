"""What every method gives back, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.errors import CellError, DivergedError
from qbench.methods.base import Method
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.methods.rtn import RoundToNearest
from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quant.grid import IntegerGrid
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

# A small budget for each built-in method.
BUDGETS: dict[str, dict[str, Any]] = {
    "rtn": {},
    "gptq": {},
    "adaround": {"iterations": 20},
    "brecq": {"iterations": 10},
    "block_ap": {"epochs": 1, "batch_size": 4},
    "ste_qat": {"steps": 2, "batch_size": 2},
    "lsq": {"steps": 2, "batch_size": 2},
    "latent_grad": {"steps": 2, "batch_size": 2},
    "noise_grad": {"steps": 2, "batch_size": 2},
    "random_grad": {"steps": 2, "batch_size": 2},
    "ft_then_ptq": {"steps": 2, "batch_size": 2},
    "qubo": {},
}
POST_TRAINING = {"gptq", "adaround", "brecq", "block_ap", "qubo"}
FIRST = "model.layers.0.self_attn.q_proj"


def make(name: str, **options: Any) -> Method:
    made = METHODS.get(name).model_validate({"name": name, **BUDGETS[name], **options})
    assert isinstance(made, Method)
    return made


def solved(problem: Problem, **changed: Any) -> Solution:
    """Return the rounding to nearest, with the first layer's solution changed."""
    solution = RoundToNearest(name="rtn").solve(problem)
    solution.layers[FIRST] = dataclasses.replace(solution.layers[FIRST], **changed)
    return solution


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize(
    "grid",
    [
        {},
        {"granularity": "per_tensor", "symmetric": False},
        {"granularity": {"per_group": 12}, "quantizer": "mse"},
    ],
    ids=str,
)
def test_contract(make_problem: MakeProblem, name: str, grid: dict[str, Any]) -> None:
    problem = make_problem(bits=3, **grid)
    before = copy.deepcopy(problem.model.state_dict())
    solution = make(name).solve(problem)
    solution.check(problem)
    assert list(solution.layers) == [layer.name for layer in problem.layers]
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert found.codes.shape == layer.module.weight.shape
        assert torch.equal(fake_quantize(found.weight(), found.grid), found.weight())
        if name not in ("lsq", "block_ap", "ft_then_ptq"):
            assert torch.equal(found.grid.scale, layer.grid.scale)
        if name != "ft_then_ptq":  # its grid is chosen again, from other weights
            assert torch.equal(found.grid.zero_point, layer.grid.zero_point)
        if name in POST_TRAINING:
            assert torch.equal(layer.module.weight, found.weight())
            assert found.fallback is None
    assert solution.calibration_tokens == (11 * 12 if name in POST_TRAINING else 0)
    after = problem.model.state_dict()
    targets = {f"{layer.name}.weight" for layer in problem.layers}
    assert all(torch.equal(before[key], after[key]) for key in before if key not in targets)

    again = make(name).solve(make_problem(bits=3, **grid))
    assert all(torch.equal(found.codes, again.layers[key].codes) for key, found in solution.layers.items())
    assert solution.traces == again.traces


def test_all_built_in_names_are_tested() -> None:
    assert {name for name in METHODS.names() if METHODS.get(name).__module__.startswith("qbench.")} == set(BUDGETS)


def test_rounding_to_nearest_sees_and_changes_nothing(make_problem: MakeProblem) -> None:
    problem = make_problem()
    blind = dataclasses.replace(problem, model=None, calibration=None, loss=None, forward=None, train_batches=None)
    before = [layer.module.weight.detach().clone() for layer in problem.layers]
    solution = RoundToNearest(name="rtn").solve(blind)
    for layer, weight in zip(problem.layers, before, strict=True):
        assert torch.equal(solution.layers[layer.name].codes, quantize(weight, layer.grid))
        assert torch.equal(layer.module.weight, weight)


@pytest.mark.parametrize("name", ["adaround", "gptq"])
def test_a_truly_sequential_layer_sees_the_quantized_layers_of_its_block(make_problem: MakeProblem, name: str) -> None:
    within, across = (make(name, true_sequential=value).solve(make_problem(bits=2)).layers for value in (True, False))
    same = {key.removeprefix("model.layers.") for key in within if torch.equal(within[key].codes, across[key].codes)}
    assert same >= {"0.self_attn.q_proj", "0.self_attn.k_proj", "0.self_attn.v_proj"}
    assert not same & {"0.mlp.gate_proj", "0.mlp.up_proj", "0.mlp.down_proj"}


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_gptq_lowers_the_layer_errors_of_a_model(make_problem: MakeProblem, bits: int) -> None:
    layers = make("gptq").solve(make_problem(bits=bits)).layers.values()
    assert sum(found.objective for found in layers) < 0.8 * sum(found.rtn_objective for found in layers)


def test_a_sound_solution_passes(make_problem: MakeProblem) -> None:
    problem = make_problem()
    solved(problem).check(problem)


def test_a_missing_layer_is_named(make_problem: MakeProblem) -> None:
    problem = make_problem()
    solution = solved(problem)
    del solution.layers[FIRST]
    with pytest.raises(CellError) as caught:
        solution.check(problem)
    assert str(caught.value) == f"the method left layer {FIRST!r} out"


@pytest.mark.parametrize("shape", [(1, 16), (16,), (16, 1)])
def test_codes_of_a_wrong_shape_are_refused(make_problem: MakeProblem, shape: tuple[int, ...]) -> None:
    problem = make_problem()
    with pytest.raises(CellError) as caught:
        solved(problem, codes=torch.zeros(shape)).check(problem)
    assert str(caught.value) == f"layer {FIRST!r} has codes of shape {shape}, expected (16, 16)"


@pytest.mark.parametrize("value", [0.5, 4.0, -5.0])
def test_codes_off_the_grid_are_refused(make_problem: MakeProblem, value: float) -> None:
    problem = make_problem(bits=3)
    codes = torch.zeros(16, 16)
    codes[3, 4] = value
    with pytest.raises(CellError) as caught:
        solved(problem, codes=codes).check(problem)
    assert str(caught.value) == f"layer {FIRST!r} has codes that are not levels of its grid"


def test_a_layer_that_was_not_asked_for_is_refused(make_problem: MakeProblem) -> None:
    problem = make_problem()
    solution = solved(problem)
    solution.layers["lm_head"] = solution.layers[FIRST]
    with pytest.raises(CellError, match=r"^the method gave layer 'lm_head', which is no target layer$"):
        solution.check(problem)


def test_codes_on_another_device_are_refused(make_problem: MakeProblem) -> None:
    problem = make_problem()
    with pytest.raises(CellError, match=r"has codes on meta, expected cpu$"):
        solved(problem, codes=torch.zeros(16, 16, device="meta")).check(problem)


@pytest.mark.parametrize("part", ["scale", "zero_point"])
def test_a_grid_of_other_granularity_is_refused(make_problem: MakeProblem, part: str) -> None:
    problem = make_problem()
    grid = dataclasses.replace(problem.layers[0].grid, **{part: torch.ones(16, 16)})
    with pytest.raises(CellError, match=rf"has a {part} of shape \(16, 16\) in groups of 16, expected \(16, 1\)"):
        solved(problem, grid=grid).check(problem)


def test_a_grid_of_other_levels_is_refused(make_problem: MakeProblem) -> None:
    problem = make_problem(bits=3)
    other = dataclasses.replace(problem.layers[0].grid, levels=IntegerGrid(4, symmetric=True))
    with pytest.raises(CellError, match="has codes that are not levels of its grid"):
        solved(problem, grid=other).check(problem)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["codes", "scale"])
def test_what_is_not_finite_has_diverged(make_problem: MakeProblem, value: float, where: str) -> None:
    problem = make_problem()
    codes, grid = torch.zeros(16, 16), problem.layers[0].grid
    scale = grid.scale.clone()
    (codes if where == "codes" else scale)[0, 0] = value
    with pytest.raises(DivergedError) as caught:
        solved(problem, codes=codes, grid=grid.with_scale(scale)).check(problem)
    told = {"codes": "codes that are not finite", "scale": "a scale that is not finite"}
    assert str(caught.value) == f"layer {FIRST!r} has {told[where]}"


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_a_scale_that_is_not_positive_has_diverged(make_problem: MakeProblem, value: float) -> None:
    problem = make_problem()
    scale = problem.layers[0].grid.scale.clone()
    scale[2] = value
    with pytest.raises(DivergedError) as caught:
        solved(problem, grid=problem.layers[0].grid.with_scale(scale)).check(problem)
    assert str(caught.value) == f"layer {FIRST!r} has a scale that is not positive"


def test_the_deployed_weight_is_what_the_codes_stand_for(make_problem: MakeProblem) -> None:
    grid = make_problem(symmetric=False).layers[0].grid
    codes = torch.full((16, 16), 5.0)
    assert torch.equal(LayerSolution(codes, grid).weight(), (codes - grid.zero_point) * grid.scale)

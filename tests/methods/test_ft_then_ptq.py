"""Fine-tuning, then post-training quantization: the control's training, and the quantizer's grids from its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import CellError, DivergedError
from qbench.methods.ft_then_ptq import FineTuningThenPTQ
from qbench.methods.gptq import GPTQ
from qbench.methods.latent import LatentWeight
from qbench.methods.problem import Problem
from qbench.quant.block_grid import BlockGrid, fake_quantize, quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.hessian_mse import HessianWeightedError
from qbench.quantizers.layout import choose_grid

MakeProblem = Callable[..., Problem]

GRIDS: list[dict[str, Any]] = [
    {},
    {"quantizer": "mse", "granularity": "per_tensor", "bits": 2},
    {"granularity": {"per_group": 12}, "symmetric": False},
    {"quantizer": "nf"},
    {"quantizer": "kmeans", "bits": 2},
    {"quantizer": "nvfp4", "bits": 4},
]
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)
each_choice = pytest.mark.parametrize("choice", ["again", "given"])
each_ptq = pytest.mark.parametrize("ptq", ["rtn", "gptq"])


def made(**options: Any) -> FineTuningThenPTQ:
    changed = {"steps": 4, "learning_rate": 0.03, **options}
    return FineTuningThenPTQ.model_validate({"name": "ft_then_ptq", **changed})


def tuned_by_the_control(problem: Problem, method: FineTuningThenPTQ) -> tuple[Problem, list[float]]:
    """Return the problem with trained weights, and on the grids that the method is to have, made by hand."""
    losses = method.control().train(problem).traces["train_loss"]

    def grid_of(layer: Any) -> BlockGrid:
        if method.grid == "given":
            return layer.grid
        return choose_grid(layer.matrix(), layer.quantizer, layer.grid.levels.bits)

    blocks = [
        dataclasses.replace(
            block, layers=tuple(dataclasses.replace(layer, grid=grid_of(layer)) for layer in block.layers)
        )
        for block in problem.blocks
    ]
    return dataclasses.replace(problem, blocks=blocks), losses


@each_grid
@each_choice
@each_ptq
def test_it_is_the_control_and_then_ptq(make_problem: MakeProblem, grid: dict[str, Any], choice: str, ptq: str) -> None:
    method, given = made(grid=choice, ptq=ptq), make_problem(**grid)
    found = method.solve(given)
    found.check(given)
    tuned, losses = tuned_by_the_control(make_problem(**grid), method)
    assert found.traces == {"train_loss": losses}
    assert (found.train_steps, found.train_tokens) == (4, 4 * 8 * 12)
    if ptq == "rtn":
        expected = {layer.name: (quantize(layer.matrix(), layer.grid), layer.grid) for layer in tuned.layers}
        assert found.calibration_tokens == 0
    else:
        by_gptq = GPTQ(name="gptq").solve(tuned)
        expected = {name: (one.codes, one.grid) for name, one in by_gptq.layers.items()}
        assert found.calibration_tokens == tuned.calibration_tokens
    for name, (codes, own) in expected.items():
        layer = found.layers[name]
        assert torch.equal(layer.codes, codes)
        assert torch.equal(layer.grid.scale, own.scale) and torch.equal(layer.grid.zero_point, own.zero_point)
        assert (layer.grid.table is None) == (own.table is None)
        assert own.table is None or torch.equal(layer.grid.table, own.table)  # type: ignore[arg-type]
        assert layer.details["moved_l1"] > 0
    for layer in given.layers:
        assert torch.equal(layer.matrix(), found.layers[layer.name].weight())


def test_the_grid_follows_the_weights_only_where_it_is_to(make_problem: MakeProblem) -> None:
    first = {layer.name: layer.grid.scale.clone() for layer in make_problem().layers}
    again, given = (made(grid=choice).solve(make_problem()) for choice in ("again", "given"))
    assert all(torch.equal(given.layers[name].grid.scale, scale) for name, scale in first.items())
    assert all(not torch.equal(again.layers[name].grid.scale, scale) for name, scale in first.items())


def test_bits_of_a_layer_stay(make_problem: MakeProblem) -> None:
    """A first layer of 8 bits keeps them."""
    problem = make_problem(bits=3)
    (first, *others), rest = problem.blocks[0].layers, problem.blocks[1:]
    assert first.quantizer is not None
    wide = dataclasses.replace(first, grid=choose_grid(first.matrix(), first.quantizer, 8))
    blocks = [dataclasses.replace(problem.blocks[0], layers=(wide, *others)), *rest]
    found = made().solve(dataclasses.replace(problem, blocks=blocks))
    assert found.layers[first.name].grid.levels.bits == 8
    assert {found.layers[one.name].grid.levels.bits for one in others} == {3}


class Shown:
    def __init__(self) -> None:
        self.deployed: dict[int, dict[str, Tensor]] = {}
        self.latent: dict[int, dict[str, Tensor]] = {}

    def wants(self, step: int) -> bool:
        return True

    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        self.deployed[step] = {one.layer.name: one.deployed() for one in weights}
        self.latent[step] = {one.layer.name: one.latent.detach().clone() for one in weights}


@each_choice
def test_watches_see_what_would_be_deployed(make_problem: MakeProblem, choice: str) -> None:
    shown, problem = Shown(), make_problem()
    watched = made(grid=choice).solve(dataclasses.replace(problem, watch=shown))
    alone = made(grid=choice).solve(make_problem())
    assert watched.traces == alone.traces
    assert watched.watched_seconds > 0 == alone.watched_seconds
    for layer in make_problem().layers:
        own = watched.layers[layer.name]
        assert torch.equal(own.codes, alone.layers[layer.name].codes)
        assert torch.equal(shown.deployed[0][layer.name], fake_quantize(layer.matrix(), layer.grid))
        assert torch.equal(shown.deployed[4][layer.name], own.weight())
        halfway = shown.latent[2][layer.name]
        assert layer.quantizer is not None
        grid = choose_grid(halfway, layer.quantizer, 3) if choice == "again" else layer.grid
        assert torch.equal(shown.deployed[2][layer.name], fake_quantize(halfway, grid))


@each_ptq
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_of_batch_norms_are_the_control_s(
    make_images_problem: MakeProblem, ptq: str, dtype: torch.dtype
) -> None:
    method, given, control = made(ptq=ptq, bn_training="update"), *(make_images_problem(dtype=dtype) for _ in range(2))
    found, expected = method.solve(given), method.control().train(control)
    found.check(given)
    assert found.statistics.keys() == expected.statistics.keys() != set()
    for name, value in expected.statistics.items():
        assert torch.equal(found.statistics[name], value)


def test_what_cannot_choose_a_grid_again_is_told(make_problem: MakeProblem) -> None:
    quantizer = HessianWeightedError(name="hessian_mse")
    assert "hessian_mse needs inputs too" in str(made().refuses_grid(quantizer))
    assert made(grid="given").refuses_grid(quantizer) is made().refuses_grid(AbsMax(name="absmax")) is None
    problem = make_problem()
    blocks = [
        dataclasses.replace(one, layers=tuple(dataclasses.replace(layer, quantizer=None) for layer in one.layers))
        for one in problem.blocks
    ]
    unknown = dataclasses.replace(problem, blocks=blocks)
    with pytest.raises(CellError, match=r"no quantizer.*allowed here: grid: given"):
        made().solve(unknown)
    made(grid="given").solve(unknown).check(problem)


@each_choice
@each_ptq
def test_weights_that_diverge_are_told(make_problem: MakeProblem, choice: str, ptq: str) -> None:
    problem = make_problem()

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        found = problem.loss(model, batch)
        return found + (found - found.detach()) * 1e38  # finite itself, with a gradient that is far too long

    method = made(grid=choice, ptq=ptq, steps=1, optimizer="sgd", learning_rate=1e10, clip_norm=None)
    with pytest.raises(DivergedError, match=r"^the weight of layer '.*' became NaN or infinite$"):
        method.solve(dataclasses.replace(problem, loss=loss))

"""Where the gradient is taken, with all else as in STE-QAT: against loops by hand, and against one another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from qbench.methods.base import Method
from qbench.methods.latent import LatentWeight
from qbench.methods.layer_inputs import installed, quantized_inputs
from qbench.methods.locus_weights import NoisyWeight, RandomDirectionWeight, cell_widths, generator_of
from qbench.methods.problem import Problem, Solution, TargetLayer
from qbench.methods.qat_options import TrainingMethod
from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Codebook
from qbench.quantizers.activations import Activations
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

ABLATIONS = ["latent_grad", "noise_grad", "random_grad"]
TRAINED = ["ste_qat", *ABLATIONS, "ft_then_ptq"]
GRIDS: list[dict[str, Any]] = [
    {},
    {"granularity": "per_tensor", "symmetric": False},
    {"granularity": {"per_group": 12}, "symmetric": False},
    {"quantizer": "nf"},
    {"quantizer": "kmeans", "bits": 2},
]
PLAIN: dict[str, Any] = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None}
each_ablation = pytest.mark.parametrize("name", ABLATIONS)
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def made(name: str, **options: Any) -> Any:
    return METHODS.get(name).model_validate({"name": name, "steps": 4, "batch_size": 4, **options})


def solved(problem: Problem, name: str, **options: Any) -> Solution:
    method = made(name, **options)
    assert isinstance(method, Method)
    found = method.solve(problem)
    found.check(problem)
    return found


def weights_of(problem: Problem) -> dict[str, Tensor]:
    return {layer.name: layer.matrix().clone() for layer in problem.layers}


def assert_same_codes(one: Solution, other: Solution) -> None:
    for name, found in one.layers.items():
        assert torch.equal(found.codes, other.layers[name].codes), name


def moved(solution: Solution, problem: Problem) -> bool:
    """Return whether any code differs from rounding to nearest, given a problem that nobody has solved."""
    return any((solution.layers[one.name].codes != quantize(one.matrix(), one.grid)).any() for one in problem.layers)


@pytest.mark.parametrize(
    "options", [{}, PLAIN, {"schedule": "constant", "clip_norm": 0.1, "optimizer": "sgd", "momentum": 0.5}], ids=str
)
def test_budget_batches_and_rates_are_the_same(make_problem: MakeProblem, options: dict[str, Any]) -> None:
    seen = {}
    for name in TRAINED:
        batches: list[Tensor] = []
        rates: list[tuple[str, list[float], int]] = []
        problem = make_problem()

        def loss(model: nn.Module, batch: Tensor, kept: Any = batches, problem: Problem = problem) -> Tensor:
            kept.append(batch)
            return problem.loss(model, batch)

        def note(optimizer: torch.optim.Optimizer, *_: Any, kept: Any = rates) -> None:
            parts = [(group["lr"], group.get("momentum"), group.get("betas")) for group in optimizer.param_groups]
            count = sum(one.numel() for group in optimizer.param_groups for one in group["params"])
            kept.append((type(optimizer).__name__, parts, count))

        handle = register_optimizer_step_pre_hook(note)
        found = solved(dataclasses.replace(problem, loss=loss), name, **options)
        handle.remove()
        seen[name] = (torch.stack(batches), rates, found.train_steps, found.train_tokens)
    assert len(seen["ste_qat"][1]) == 4
    for name, (given, *rest) in seen.items():
        assert torch.equal(given, seen["ste_qat"][0]), name
        assert rest == list(seen["ste_qat"][1:]), name


@pytest.mark.parametrize("name", TRAINED)
def test_all_have_one_control(name: str) -> None:
    options = {**PLAIN, "steps": 7, "bn": "recalibrate", "bn_training": "update"}
    assert made(name, **options).control() == made("ste_qat", **options).control()
    assert isinstance(made(name), TrainingMethod)


@pytest.mark.parametrize("name", TRAINED)
@each_grid
def test_a_rate_of_nothing_is_rounding_to_nearest(make_problem: MakeProblem, name: str, grid: dict[str, Any]) -> None:
    found = solved(make_problem(**grid), name, learning_rate=0)
    assert not moved(found, make_problem(**grid))
    assert all(layer.details["moved_l1"] == 0 for layer in found.layers.values())


@each_grid
@pytest.mark.parametrize("options", [{"learning_rate": 0.02}, {**PLAIN, "learning_rate": 0.3}], ids=str)
def test_the_gradient_at_the_latent_weights_is_fine_tuning(
    make_problem: MakeProblem, grid: dict[str, Any], options: dict[str, Any]
) -> None:
    found, tuned = solved(make_problem(**grid), "latent_grad", **options), make_problem(**grid)
    control = made("ste_qat", **options).control().train(tuned)
    assert found.traces["train_loss"] == control.traces["train_loss"]
    for layer in tuned.layers:
        assert torch.equal(found.layers[layer.name].codes, quantize(layer.matrix(), layer.grid))
        assert found.layers[layer.name].grid is not layer.grid
        assert torch.equal(found.layers[layer.name].grid.scale, layer.grid.scale)
    assert_same_codes(found, solved(make_problem(**grid), "ft_then_ptq", grid="given", **options))
    assert moved(found, make_problem(**grid))


def by_hand(problem: Problem, displace: Callable[[TargetLayer, Tensor], Tensor], rate: float) -> dict[str, Tensor]:
    """Return codes after plain descent with gradients at displaced weights."""
    weights = [layer.module.weight for layer in problem.layers]
    latents = [weight.detach().clone() for weight in weights]
    for batch in itertools.islice(problem.train_batches(4, problem.seed_of("train-batches")), 4):
        for layer, weight, latent in zip(problem.layers, weights, latents, strict=True):
            weight.data.copy_(displace(layer, latent))
        gradients = torch.autograd.grad(problem.loss(problem.model, batch), weights)
        for latent, gradient in zip(latents, gradients, strict=True):
            latent.sub_(rate * gradient)
    return {layer.name: quantize(latent, layer.grid) for layer, latent in zip(problem.layers, latents, strict=True)}


@pytest.mark.parametrize("grid", GRIDS[:3], ids=str)
def test_the_gradient_under_noise_by_hand(make_problem: MakeProblem, grid: dict[str, Any]) -> None:
    problem = make_problem(**grid)
    generator = torch.Generator().manual_seed(problem.seed_of("gradient-noise"))

    def noisy(layer: TargetLayer, latent: Tensor) -> Tensor:
        step, _ = layer.grid.by_column(latent.shape[1], latent.shape[0])
        return latent + step * (torch.rand(latent.shape, generator=generator) - 0.5)

    expected = by_hand(problem, noisy, 0.3)
    found = solved(make_problem(**grid), "noise_grad", **PLAIN, learning_rate=0.3)
    differing = sum(int((found.layers[name].codes != codes).sum()) for name, codes in expected.items())
    assert differing <= 1e-3 * sum(codes.numel() for codes in expected.values())
    assert moved(found, make_problem(**grid))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_widths_of_cells(make_problem: MakeProblem, grid: dict[str, Any]) -> None:
    for layer in make_problem(**grid).layers[:3]:
        weight, levels = layer.matrix(), layer.grid.levels
        codes = torch.arange(levels.quant_min, levels.quant_max + 1.0)
        scale, snapping = layer.grid.on_matrix(weight)
        widths = cell_widths(weight, layer.grid).expand_as(weight)
        nearest = fake_quantize(weight, layer.grid)
        if isinstance(levels, IntegerGrid):
            assert torch.equal(widths, scale.expand_as(weight))
        for row, column in itertools.product(range(0, len(weight), 3), range(0, weight.shape[1], 5)):
            # Every level that this weight could have, and the ends of the cell that it lies in.
            if isinstance(levels, Codebook):
                assert layer.grid.table is not None
                own = layer.grid.table[row % len(layer.grid.table)]
            else:
                every = torch.stack([snapping.values(torch.full_like(weight, float(code))) for code in codes])
                own = (every * scale)[:, row, column]
            at = int((own - nearest[row, column]).abs().argmin())
            ends = [float((own[at] + own[other]) / 2) for other in (at - 1, at + 1) if 0 <= other < len(own)]
            reach = [abs(end - float(own[at])) for end in ends]
            expected = sum(reach) if len(reach) == 2 else 2 * reach[0]
            assert float(widths[row, column]) == pytest.approx(expected, rel=1e-4)


@each_grid
def test_noise_fills_the_cell_and_is_new_at_each_step(make_problem: MakeProblem, grid: dict[str, Any]) -> None:
    problem = make_problem(**grid)
    generator, draws = generator_of(problem, "gradient-noise"), []
    for layer in problem.layers:
        before, weight = layer.matrix().clone(), NoisyWeight(layer, generator)
        shares = []
        for _ in range(2):
            weight.write()
            shares.append((layer.matrix() - before) / cell_widths(before, layer.grid))
            assert torch.equal(weight.latent.detach(), before)
        assert (shares[0] != shares[1]).float().mean() > 0.9
        draws += shares
    pooled = torch.cat([one.flatten() for one in draws])
    pooled = pooled[pooled.isfinite()].sort().values
    assert pooled.abs().max() <= 0.5 + 1e-4
    # Kolmogorov's distance from the uniform distribution stays below 1.95 / sqrt(n) in 999 of 1000 cases.
    distance = (pooled + 0.5 - torch.linspace(0, 1, len(pooled))).abs().max()
    assert float(distance) < 1.95 / len(pooled) ** 0.5 + 1e-4


@each_grid
def test_random_directions_are_as_long_as_the_gradients(make_problem: MakeProblem, grid: dict[str, Any]) -> None:
    problem = make_problem(**grid)
    generator = generator_of(problem, "gradient-direction")
    weights = [RandomDirectionWeight(layer, generator) for layer in problem.layers]
    for weight in weights:
        weight.write()
        assert torch.equal(weight.layer.matrix(), fake_quantize(weight.latent.detach(), weight.layer.grid))
    problem.loss(problem.model, problem.calibration[0]).backward()
    gradients = [layer.module.weight.grad.clone() for layer in problem.layers]  # type: ignore[operator, union-attr]
    cosines = []
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.take_gradient()
        own = weight.latent.grad
        assert own is not None
        assert float(own.norm()) == pytest.approx(float(gradient.norm()), rel=1e-5)
        cosines.append(float((own * gradient).sum() / own.norm() / gradient.norm()) * own.numel() ** 0.5)
    # Of a random direction, times the root of the dimensions, a cosine is a standard normal number.
    assert max(map(abs, cosines)) < 4
    assert sum(one**2 for one in cosines) / len(cosines) < 3


def test_a_layer_without_gradient_stays(make_problem: MakeProblem) -> None:
    problem = make_problem()
    (layer, *_) = problem.layers
    weight = RandomDirectionWeight(layer, generator_of(problem, "gradient-direction"))
    assert not weight.gradient_to_latent(torch.zeros(3, 5)).any()


@each_ablation
def test_the_same_seed_gives_the_same_bytes(make_problem: MakeProblem, name: str) -> None:
    first, second, other = (solved(make_problem(seed=seed), name, learning_rate=0.02) for seed in (1, 1, 2))
    assert_same_codes(first, second)
    assert first.traces == second.traces != other.traces


def test_they_are_four_different_things(make_problem: MakeProblem) -> None:
    losses = {name: solved(make_problem(bits=2), name, learning_rate=0.02).traces["train_loss"] for name in TRAINED}
    assert len({tuple(curve) for name, curve in losses.items() if name != "ft_then_ptq"}) == 4
    # At the first step two of them compute with the levels, and two without.
    assert losses["random_grad"][0] == losses["ste_qat"][0] != losses["latent_grad"][0] == losses["ft_then_ptq"][0]
    assert losses["noise_grad"][0] not in (losses["ste_qat"][0], losses["latent_grad"][0])


@each_ablation
def test_the_model_is_left_with_what_is_deployed(make_problem: MakeProblem, name: str) -> None:
    problem = make_problem()
    for layer, found in zip(problem.layers, solved(problem, name, learning_rate=0.02).layers.values(), strict=True):
        assert torch.equal(layer.matrix(), found.weight())
    assert not problem.model.training


class Shown:
    def __init__(self) -> None:
        self.deployed: dict[int, dict[str, Tensor]] = {}
        self.latent: dict[int, dict[str, Tensor]] = {}

    def wants(self, step: int) -> bool:
        return True

    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        self.deployed[step] = {one.layer.name: one.deployed() for one in weights}
        self.latent[step] = {one.layer.name: one.latent.detach().clone() for one in weights}


@each_ablation
@each_grid
def test_watches_see_levels_and_change_nothing(make_problem: MakeProblem, name: str, grid: dict[str, Any]) -> None:
    shown, problem = Shown(), make_problem(**grid)
    first = weights_of(problem)
    watched = solved(dataclasses.replace(problem, watch=shown), name, learning_rate=0.02)
    alone = solved(make_problem(**grid), name, learning_rate=0.02)
    assert watched.traces == alone.traces
    assert_same_codes(watched, alone)
    assert watched.watched_seconds > 0 == alone.watched_seconds
    for layer in problem.layers:
        assert torch.equal(shown.latent[0][layer.name], first[layer.name])
        for step, latent in shown.latent.items():
            assert torch.equal(shown.deployed[step][layer.name], fake_quantize(latent[layer.name], layer.grid))
        assert torch.equal(shown.deployed[4][layer.name], watched.layers[layer.name].weight())


@each_ablation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_and_short_types(make_images_problem: MakeProblem, name: str, dtype: torch.dtype) -> None:
    problem = make_images_problem(dtype=dtype)
    found = solved(problem, name, learning_rate=0.05, bn_training="update")
    assert found.train_steps == 1
    assert moved(found, make_images_problem(dtype=dtype))
    assert len(found.statistics) == 6
    for layer in problem.layers:
        assert torch.equal(layer.weight.flatten(1), found.layers[layer.name].weight().to(dtype))


@each_ablation
@pytest.mark.parametrize("setting", [{"bits": 4}, {"bits": 4, "scale": "static"}], ids=str)
def test_inputs_are_quantized_as_in_ste_qat(make_problem: MakeProblem, name: str, setting: dict[str, Any]) -> None:
    def problem() -> Problem:
        plain = make_problem()
        kept = Activations.model_validate(setting)
        blocks = [
            dataclasses.replace(one, layers=tuple(dataclasses.replace(layer, activations=kept) for layer in one.layers))
            for one in plain.blocks
        ]
        return dataclasses.replace(plain, blocks=blocks)

    found, expected = (solved(problem(), kind, learning_rate=0.02) for kind in (name, "ste_qat"))
    assert found.inputs.keys() == expected.inputs.keys()
    assert found.calibration_tokens == expected.calibration_tokens
    for layer, params in found.inputs.items():
        assert torch.equal(params.scale, expected.inputs[layer].scale)
        assert torch.equal(params.zero_points(), expected.inputs[layer].zero_points())
    if name == "random_grad":
        assert found.traces["train_loss"][0] == expected.traces["train_loss"][0]
    if name == "latent_grad":
        plain = problem()
        batch = next(plain.train_batches(4, plain.seed_of("train-batches")))
        with torch.no_grad(), installed(quantized_inputs(plain, expected.inputs)):
            first = plain.loss(plain.model.train(), batch).item()
        assert found.traces["train_loss"][0] == pytest.approx(first, rel=1e-6)
        assert first != solved(make_problem(), name).traces["train_loss"][0]

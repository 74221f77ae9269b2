"""Training through quantized inputs beside loops by hand, step by step."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.methods.base import Method
from qbench.methods.layer_inputs import (
    input_ranges,
    installed,
    quantized_inputs,
    static_params,
)
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.problem import Problem, TargetLayer
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quant.qparams import QParams
from qbench.quantizers.activations import Activations

MakeProblem = Callable[..., Problem]

STEPS = 3
STATIC: dict[str, Any] = {"bits": 4, "scale": "static", "range": "mse"}
SETTINGS: list[dict[str, Any]] = [{"bits": 4}, {"bits": 4, "granularity": "per_tensor", "symmetric": True}, STATIC]
each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: str(Activations.model_validate(one)))
both = pytest.mark.parametrize("kind", [StraightThroughQAT, LearnedStepSize])


def with_inputs(problem: Problem, setting: dict[str, Any] | None) -> Problem:
    """Return the problem with the inputs of its layers quantized."""
    activations = None if setting is None else Activations.model_validate(setting)

    def changed(layer: TargetLayer) -> TargetLayer:
        return dataclasses.replace(layer, activations=activations)

    blocks = [dataclasses.replace(block, layers=tuple(map(changed, block.layers))) for block in problem.blocks]
    return dataclasses.replace(problem, blocks=blocks)


def qat(kind: type[Method], **options: Any) -> Any:
    plain = {"optimizer": "sgd", "learning_rate": 0.3, "schedule": "constant", "clip_norm": None}
    return kind.model_validate({"name": "qat", "steps": STEPS, "batch_size": 4, **plain, **options})


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def straight_through(x: Tensor, scale: Tensor, zero: Tensor, bounds: tuple[int, int], masked: bool) -> Tensor:
    place = x / scale
    value = torch.minimum(torch.maximum(place.round(), bounds[0] - zero), bounds[1] - zero) * scale
    through = x - x.detach()
    if masked:
        inside = (place + zero >= bounds[0]) & (place + zero <= bounds[1])
        through = torch.where(inside, through, torch.zeros(()))
    return value.detach() + through


def learned_step(x: Tensor, scale: Tensor, zero: Tensor, bounds: tuple[int, int], gain: float) -> Tensor:
    # To the bit: the largest weight of a row lies on a tie.
    scale = scale.detach() + (scale - scale.detach()) * gain
    place = x / scale
    level = torch.minimum(torch.maximum(place.round(), bounds[0] - zero), bounds[1] - zero)
    inside = (place + zero > bounds[0]) & (place + zero < bounds[1])
    return torch.where(inside, (level - place).detach() + place, level.detach()) * scale


class ByHand:
    """Training through weights and inputs, with hooks of its own and plain SGD with momentum."""

    def __init__(self, problem: Problem, options: Any) -> None:
        self.problem, self.options = problem, options
        self.learned = isinstance(options, LearnedStepSize)
        self.masked = not self.learned and options.gradient == "masked"
        self.activations = problem.layers[0].activations
        assert self.activations is not None
        self.latents = {one.name: one.module.weight.detach().clone().requires_grad_() for one in problem.layers}
        self.scales = {one.name: one.grid.scale.clone().requires_grad_() for one in problem.layers}
        self.grids: dict[str, tuple[Tensor, Tensor]] = {}
        if self.activations.scale == "static":
            self.calibrate()
        self.first = {name: float(scale.detach()) for name, (scale, _) in self.grids.items()}

    @torch.no_grad()
    def calibrate(self) -> None:
        copied = copy.deepcopy(self.problem.model)
        seen: dict[str, list[Tensor]] = {name: [] for name in self.latents}
        for layer in self.problem.layers:
            module = copied.get_submodule(layer.name)
            module.weight.copy_(fake_quantize(module.weight, layer.grid))
            module.register_forward_pre_hook(lambda _, args, name=layer.name: seen[name].append(args[0].flatten()))
        for batch in self.problem.calibration:
            self.problem.forward(copied, batch)
        levels = self.activations.levels()
        for name, inputs in seen.items():
            x = torch.cat(inputs)
            params = QParams.from_range(x.min().view(1, 1), x.max().view(1, 1), levels)
            scale, zero = params.scale, params.zero_points()
            if self.learned and self.options.init == "lsq":
                scale = 2 * x.abs().mean().view(1, 1) / math.sqrt(self.top(zero))
            self.grids[name] = (scale.clone().requires_grad_(self.learned), zero)

    def top(self, zero: Tensor) -> float:
        levels = self.activations.levels()
        return levels.quant_max if levels.symmetric else max(levels.quant_max - float(zero), float(zero))

    def quantize_input(self, name: str, x: Tensor) -> Tensor:
        levels, per_token = self.activations.levels(), self.activations.granularity == "per_token"
        bounds = (levels.quant_min, levels.quant_max)
        if self.activations.scale == "static":
            scale, zero = self.grids[name]
            if self.learned:
                return learned_step(x, scale, zero, bounds, 1 / math.sqrt(x.shape[-1] * self.top(zero)))
        else:
            low, high = (
                (x.detach().amin(-1, keepdim=True), x.detach().amax(-1, keepdim=True))
                if per_token
                else (x.detach().min(), x.detach().max())
            )
            params = QParams.from_range(low, high, levels)
            scale, zero = params.scale, params.zero_points()
        return straight_through(x, scale, zero, bounds, self.masked)

    def quantize_weight(self, layer: TargetLayer) -> Tensor:
        latent, levels = self.latents[layer.name], layer.grid.levels
        bounds, zero = (levels.quant_min, levels.quant_max), torch.zeros(())
        if self.learned:
            gain = 1 / math.sqrt(latent.numel() * levels.quant_max)
            return learned_step(latent, self.scales[layer.name], zero, bounds, gain)
        return straight_through(latent, layer.grid.scale, zero, bounds, self.masked)

    def train(self) -> list[float]:
        problem, rate = self.problem, self.options.learning_rate
        groups: list[dict[str, Any]] = [{"params": list(self.latents.values()), "lr": rate}]
        if self.learned:
            for layer in problem.layers:
                own = rate * float(layer.grid.scale.mean())
                groups.append({"params": [self.scales[layer.name]], "lr": own})
            groups += [{"params": [scale], "lr": rate * self.first[name]} for name, (scale, _) in self.grids.items()]
        optimizer = torch.optim.SGD(groups, momentum=0.9)
        for layer in problem.layers:
            layer.module.register_forward_pre_hook(
                lambda _, args, name=layer.name: (self.quantize_input(name, args[0]),)
            )
        losses = []
        batches = problem.train_batches(self.options.batch_size, problem.seed_of("train-batches"))
        for batch in itertools.islice(batches, self.options.steps):
            weights = {f"{layer.name}.weight": self.quantize_weight(layer) for layer in problem.layers}

            def call(weights: dict[str, Tensor] = weights, **arguments: Any) -> Any:
                return torch.func.functional_call(problem.model, weights, kwargs=arguments)

            loss = problem.loss(call, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses


@pytest.mark.parametrize(
    "setting",
    [{"bits": 4}, {"bits": 3, "granularity": "per_tensor", "symmetric": True}, {"bits": 3, "scale": "static"}],
    ids=["dynamic", "dynamic per tensor", "static"],
)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (StraightThroughQAT, {}),
        (StraightThroughQAT, {"gradient": "masked"}),
        (LearnedStepSize, {}),
        (LearnedStepSize, {"init": "lsq"}),
    ],
    ids=["ste", "masked ste", "lsq", "lsq, its own start"],
)
def test_training_is_the_loop_by_hand(
    make_problem: MakeProblem, setting: dict[str, Any], kind: type[Method], options: dict[str, Any]
) -> None:
    if options.get("init") == "lsq":
        # The weights' own start is tested elsewhere; here the inputs' is.
        grid_of_weights: dict[str, Any] = {"learning_rate": 0.01}
        asked = qat(kind, **options, **grid_of_weights)
        problem = with_inputs(make_problem(), setting)
        for layer in problem.layers:
            mean = layer.matrix().abs().mean(dim=1, keepdim=True)
            layer.grid.scale.copy_(2 * mean / math.sqrt(layer.grid.levels.quant_max))
    else:
        asked, problem = qat(kind, learning_rate=0.02, **options), with_inputs(make_problem(), setting)
    by_hand = ByHand(copy.deepcopy(problem), asked)
    expected = by_hand.train()
    solution = asked.solve(problem)
    solution.check(problem)
    # An input beside a tie may fall to the other side by the order of a sum.
    assert solution.traces["train_loss"] == pytest.approx(expected, rel=1e-3)
    assert len(set(solution.traces["train_loss"])) == STEPS
    assert set(solution.inputs) == (set(solution.layers) if setting.get("scale") == "static" else set())
    for name, params in solution.inputs.items():
        scale, zero = by_hand.grids[name]
        torch.testing.assert_close(params.scale, scale.detach(), rtol=2e-3, atol=0)
        assert torch.equal(params.zero_points(), zero)
        assert (float(params.scale) == by_hand.first[name]) == (kind is StraightThroughQAT)
    codes = {name: quantize(latent.detach(), solution.layers[name].grid) for name, latent in by_hand.latents.items()}
    differing = sum(int((solution.layers[name].codes != codes[name]).sum()) for name in codes)
    assert differing <= 0.01 * sum(code.numel() for code in codes.values())


@both
@each_setting
def test_the_first_loss_is_that_of_quantized_weights_and_inputs_and_no_hook_is_left(
    make_problem: MakeProblem, kind: type[Method], setting: dict[str, Any]
) -> None:
    problem, copied = (with_inputs(make_problem(), setting) for _ in range(2))
    solution = qat(kind).solve(problem)
    solution.check(problem)
    assert hooks_of(problem.model) == 0
    for layer in problem.layers:
        assert type(layer.module) is nn.Linear
        assert torch.equal(layer.module.weight, solution.layers[layer.name].weight())
    assert solution.calibration_tokens == (11 * 12 if setting is STATIC else 0)
    batch = next(copied.train_batches(4, copied.seed_of("train-batches")))
    with torch.no_grad():
        for layer in copied.layers:
            layer.write(fake_quantize(layer.matrix(), layer.grid))
        static = static_params(copied, input_ranges(copied)) if setting is STATIC else {}
        weights_only = float(copied.loss(copied.model, batch))
        with installed(quantized_inputs(copied, static)):
            expected = float(copied.loss(copied.model, batch))
    assert solution.traces["train_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - weights_only) > 1e-3


@both
def test_the_model_that_is_distilled_from_is_in_full_precision(make_problem: MakeProblem, kind: type[Method]) -> None:
    def predict(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        return logits, batch[:, 1:].flatten()

    problem, copied = (
        dataclasses.replace(with_inputs(make_problem(), {**STATIC, "range": "absmax"}), predict=predict)
        for _ in range(2)
    )
    first = qat(kind, distillation=1.0).solve(problem).traces["train_loss"][0]
    batch = next(copied.train_batches(4, copied.seed_of("train-batches")))
    with torch.no_grad():
        wanted = predict(copied.model, batch)[0].log_softmax(-1)
        for layer in copied.layers:
            layer.write(fake_quantize(layer.matrix(), layer.grid))
        with installed(quantized_inputs(copied, static_params(copied, input_ranges(copied)))):
            found = predict(copied.model, batch)[0].log_softmax(-1)
    assert first == pytest.approx(float((wanted.exp() * (wanted - found)).sum(dim=-1).mean()), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_learned_step_sizes_of_inputs_move_and_stay_positive(make_problem: MakeProblem, optimizer: str) -> None:
    problem, copied = (with_inputs(make_problem(bits=4), {**STATIC, "bits": 2}) for _ in range(2))
    with torch.no_grad():
        for layer in copied.layers:
            layer.write(fake_quantize(layer.matrix(), layer.grid))
    first = static_params(copied, input_ranges(copied))
    solution = qat(LearnedStepSize, optimizer=optimizer, step_size_learning_rate=50.0, steps=4).solve(problem)
    solution.check(problem)
    ratios = [float(solution.inputs[name].scale / params.scale) for name, params in first.items()]
    assert len(ratios) == len(problem.layers) and all(ratio != 1 for ratio in ratios)
    assert min(ratios) == pytest.approx(1e-3)


@pytest.mark.parametrize("bits", [2, 4])
@both
def test_training_lowers_the_loss_of_the_model_with_quantized_inputs(
    make_problem: MakeProblem, kind: type[Method], bits: int
) -> None:
    problem = with_inputs(make_problem(bits=4), {**STATIC, "bits": bits})
    batch = next(problem.train_batches(8, 0))
    problem = dataclasses.replace(problem, train_batches=lambda *_: itertools.repeat(batch))
    losses = qat(kind, optimizer="adamw", learning_rate=0.01, steps=30).solve(problem).traces["train_loss"]
    assert losses[-1] < 0.9 * losses[0]


@both
@each_setting
def test_the_same_seed_gives_the_same_bytes(
    make_problem: MakeProblem, kind: type[Method], setting: dict[str, Any]
) -> None:
    first, second = (qat(kind, learning_rate=0.02).solve(with_inputs(make_problem(), setting)) for _ in range(2))
    assert first.traces == second.traces
    for name, found in first.layers.items():
        assert torch.equal(found.codes, second.layers[name].codes)
    for name, params in first.inputs.items():
        assert torch.equal(params.scale, second.inputs[name].scale)


@both
def test_weights_alone_are_trained_as_before(make_problem: MakeProblem, kind: type[Method]) -> None:
    problem = make_problem()
    solution = qat(kind).solve(problem)
    assert solution.inputs == {} and solution.calibration_tokens == 0
    other = qat(kind).solve(with_inputs(make_problem(), {"bits": 4}))
    assert solution.traces["train_loss"][0] != other.traces["train_loss"][0]


@both
def test_convolutions_are_trained_with_quantized_inputs(make_images_problem: MakeProblem, kind: type[Method]) -> None:
    dtypes = (torch.float32, torch.bfloat16)
    for dtype, setting in itertools.product(dtypes, [{"bits": 4}, {"bits": 4, "scale": "static", "range": "mse"}]):
        problem = make_images_problem(bits=4, dtype=dtype)
        images = next(problem.train_batches(16, 0)).to(dtype)
        problem = dataclasses.replace(problem, train_batches=lambda *_, images=images: itertools.repeat(images))
        problem = with_inputs(problem, setting)
        solution = qat(kind, optimizer="adamw", learning_rate=0.01, steps=8).solve(problem)
        solution.check(problem)
        assert solution.traces["train_loss"][-1] < solution.traces["train_loss"][0]
        if "scale" in setting:
            # Images have no value below 0, and a ReLU lets none through.
            assert float(solution.inputs["0.0"].zero_points()) == float(solution.inputs["1.0"].zero_points()) == 0


def on(problem: Problem, device: torch.device) -> Problem:
    """Return the problem with model, grids and data on a device."""
    problem.model.to(device)

    def moved(layer: TargetLayer) -> TargetLayer:
        scale, zero_point = (part.to(device) for part in (layer.grid.scale, layer.grid.zero_point))
        return dataclasses.replace(layer, grid=dataclasses.replace(layer.grid, scale=scale, zero_point=zero_point))

    return dataclasses.replace(
        problem,
        blocks=[dataclasses.replace(block, layers=tuple(map(moved, block.layers))) for block in problem.blocks],
        calibration=[batch.to(device) for batch in problem.calibration],
        train_batches=lambda size, seed: (batch.to(device) for batch in problem.train_batches(size, seed)),
    )


@pytest.mark.gpu
@both
@pytest.mark.parametrize("setting", [*SETTINGS, {**STATIC, "range": "percentile"}], ids=str)
def test_a_device_trains_as_the_cpu_does(
    make_problem: MakeProblem, kind: type[Method], setting: dict[str, Any]
) -> None:
    found = {}
    for name in ("cpu", "cuda", "cuda again"):
        problem = on(with_inputs(make_problem(), setting), torch.device(name.partition(" ")[0]))
        found[name] = qat(kind, learning_rate=0.01).solve(problem)
        found[name].check(problem)
        assert hooks_of(problem.model) == 0
    for layer, params in found["cpu"].inputs.items():
        torch.testing.assert_close(found["cuda"].inputs[layer].scale.cpu(), params.scale, rtol=0.02, atol=0)
    losses = {name: solution.traces["train_loss"] for name, solution in found.items()}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.02)
    assert losses["cuda again"] == losses["cuda"]

"""Quantized inputs of layers: where they are, where they are not, and training through them beside loops by hand."""

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
from transformers.pytorch_utils import Conv1D

from qbench.errors import CellError, DivergedError
from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.methods.layer_inputs import (
    QuantizedInput,
    describe_inputs,
    input_ranges,
    installed,
    quantized_inputs,
    static_params,
)
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.problem import Problem, Solution, TargetLayer
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import dequantize, fake_quantize, quantize
from qbench.quant.qparams import QParams
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.activations import Activations
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

FIRST = "model.layers.0.self_attn.q_proj"
STEPS = 3
STATIC: dict[str, Any] = {"bits": 4, "scale": "static", "range": "mse"}
SETTINGS: list[dict[str, Any]] = [{"bits": 4}, {"bits": 4, "granularity": "per_tensor", "symmetric": True}, STATIC]
POST_TRAINING: dict[str, dict[str, Any]] = {
    "rtn": {},
    "gptq": {},
    "adaround": {"iterations": 10},
    "brecq": {"iterations": 5},
    "block_ap": {"epochs": 1, "batch_size": 4},
}
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


def target(module: nn.Module, **activations: Any) -> TargetLayer:
    weight = module.weight.detach()
    matrix = weight.T if isinstance(module, Conv1D) else weight.flatten(1)
    rule = AbsMax(name="absmax")
    return TargetLayer("layer", module, choose_grid(matrix, rule, 4), rule, Activations.model_validate(activations))


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def levels_of(x: Tensor, bits: int, low: float, high: float) -> Tensor:
    """Return inputs on the unsigned grid over a range, written out."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = torch.tensor((high - low) / (2**bits - 1))
    zero = (-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, 2**bits - 1).sub(zero) * scale


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_linear_layer_takes_tokens_on_scales_of_their_own(bits: int, device: torch.device) -> None:
    torch.manual_seed(0)
    module = nn.Linear(12, 5).to(device)
    x = torch.randn(2, 3, 12).to(device) * torch.tensor([1.0, 100.0], device=device)[:, None, None]
    expected = torch.stack([levels_of(t.cpu(), bits, float(t.min()), float(t.max())) for t in x.flatten(0, 1)])
    with installed([QuantizedInput(target(module, bits=bits))]):
        found = module(x)
    torch.testing.assert_close(found, module(expected.view(2, 3, 12).to(device)), rtol=1e-4, atol=1e-4)
    assert hooks_of(module) == 0
    assert (module(x) - found).abs().max() > 1e-3


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_takes_images_on_scales_of_their_own(padding_mode: str, groups: int) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(4, 6, 3, padding=1, groups=groups, padding_mode=padding_mode)
    x = torch.randn(3, 4, 5, 5) * torch.tensor([1.0, 0.01, 50.0])[:, None, None, None]
    expected = torch.stack([levels_of(image, 3, float(image.min()), float(image.max())) for image in x])
    with installed([QuantizedInput(target(module, bits=3))]):
        found, single, last = module(x), module(x[2]), module(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, module(expected))
    torch.testing.assert_close(single, found[2])
    torch.testing.assert_close(last, found)


def test_a_transposed_layer_takes_tokens_too() -> None:
    torch.manual_seed(0)
    module, x = Conv1D(5, 12), torch.randn(2, 3, 12)
    expected = torch.stack([levels_of(token, 4, float(token.min()), float(token.max())) for token in x.flatten(0, 1)])
    with installed([QuantizedInput(target(module, bits=4))]):
        torch.testing.assert_close(module(x), module.forward(expected.view(2, 3, 12)))


@pytest.mark.parametrize("granularity", ["per_token", "per_tensor"])
def test_tokens_see_each_other_per_tensor_only(granularity: str) -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(12, 5), torch.randn(6, 12)
    with installed([QuantizedInput(target(module, bits=3, granularity=granularity))]):
        together, alone = module(x), torch.cat([module(token[None]) for token in x])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6) == (granularity == "per_token")


def test_inputs_of_less_precision_keep_their_type() -> None:
    torch.manual_seed(0)
    module = nn.Linear(12, 5).bfloat16()
    x = torch.randn(6, 12).bfloat16()
    quantized = QuantizedInput(target(module, bits=8))
    with installed([quantized]):
        assert module(x).dtype == torch.bfloat16
    (found,) = quantized(module, (x,))
    exact = torch.stack([levels_of(t, 8, float(t.min()), float(t.max())) for t in x.float()])
    assert torch.equal(found, exact.bfloat16())


def test_what_comes_in_beside_the_input_is_handed_on_and_nothing_is_no_input() -> None:
    module = nn.Linear(12, 5)
    quantized = QuantizedInput(target(module, bits=8))
    rest = object()
    assert quantized(module, (torch.randn(2, 12), rest))[1] is rest
    with installed([quantized]):
        assert module(torch.empty(0, 12)).shape == (0, 5)
        with pytest.raises(CellError, match=r"^layer 'layer' is given its input by keyword, where it cannot be quant"):
            module(input=torch.randn(2, 12))
    assert hooks_of(module) == 0


@pytest.mark.parametrize("symmetric", [True, False])
def test_static_and_dynamic_are_the_same_on_the_calibration_batch(make_problem: MakeProblem, symmetric: bool) -> None:
    problem = make_problem()
    batch = problem.calibration[0]
    shared = {"bits": 4, "granularity": "per_tensor", "symmetric": symmetric}
    static = with_inputs(dataclasses.replace(problem, calibration=[batch, batch]), {**shared, "scale": "static"})
    # In one layer only: static ranges are those of inputs that come through full precision.
    only = [block.layers[-1] for block in static.blocks][-1:]
    found = static_params(static, input_ranges(static))
    dynamic = [dataclasses.replace(layer, activations=Activations.model_validate(shared)) for layer in only]
    outputs = []
    for inputs in ([QuantizedInput(only[0], found[only[0].name])], [QuantizedInput(dynamic[0])]):
        with installed(inputs), torch.no_grad():
            outputs.append(problem.model(input_ids=batch, use_cache=False).logits)
    assert torch.equal(*outputs)
    with torch.no_grad():
        assert not torch.equal(outputs[0], problem.model(input_ids=batch, use_cache=False).logits)


def test_static_ranges_are_those_of_unquantized_inputs_of_the_model_as_it_is(make_problem: MakeProblem) -> None:
    problem = with_inputs(make_problem(bits=2), {"bits": 2, "scale": "static"})
    with torch.no_grad():
        for layer in problem.layers:
            layer.write(fake_quantize(layer.matrix(), layer.grid))
    seen: dict[str, list[Tensor]] = {layer.name: [] for layer in problem.layers}
    handles = [
        layer.module.register_forward_pre_hook(lambda _, args, name=layer.name: seen[name].append(args[0].flatten()))
        for layer in problem.layers
    ]
    with torch.no_grad():
        for batch in problem.calibration:
            problem.forward(problem.model, batch)
    for handle in handles:
        handle.remove()
    ranges = input_ranges(problem)
    params = static_params(problem, ranges)
    assert list(params) == [layer.name for layer in problem.layers]
    for name, inputs in seen.items():
        x = torch.cat(inputs)
        assert (float(ranges[name].low), float(ranges[name].high)) == (float(x.min()), float(x.max()))
        assert float(params[name].scale) == pytest.approx((float(x.max()) - float(x.min())) / 3, rel=1e-6)
    assert hooks_of(problem.model) == 0


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_range_of_least_error_has_the_least_error(make_problem: MakeProblem, bits: int, symmetric: bool) -> None:
    errors = {}
    for rule in ("absmax", "mse", "percentile"):
        problem = make_problem()
        problem = with_inputs(problem, {"bits": bits, "scale": "static", "range": rule, "symmetric": symmetric})
        inputs = quantized_inputs(problem, static_params(problem, input_ranges(problem)))
        # Each layer alone, on the inputs that it is calibrated on.
        total: dict[str, float] = dict.fromkeys((layer.name for layer in problem.layers), 0.0)

        def note(
            one: QuantizedInput, module: nn.Module, args: tuple[Any, ...], total: dict[str, float] = total
        ) -> None:
            total[one.layer.name] += float((one(module, args)[0] - args[0]).square().sum())

        handles = [
            one.layer.module.register_forward_pre_hook(lambda module, args, one=one, note=note: note(one, module, args))
            for one in inputs
        ]
        with torch.no_grad():
            for batch in problem.calibration:
                problem.forward(problem.model, batch)
        for handle in handles:
            handle.remove()
        errors[rule] = total
    for name, error in errors["mse"].items():
        assert error <= 1.001 * min(errors["absmax"][name], errors["percentile"][name])
    assert sum(errors["mse"].values()) < 0.9 * sum(errors["absmax"].values())


@pytest.mark.parametrize("name", POST_TRAINING)
@pytest.mark.parametrize("setting", [{"bits": 2}, {"bits": 2, "scale": "static"}], ids=["dynamic", "static"])
def test_a_post_training_method_sees_unquantized_inputs(
    make_problem: MakeProblem, name: str, setting: dict[str, Any]
) -> None:
    method: Any = METHODS.get(name).model_validate({"name": name, **POST_TRAINING[name]})
    plain, problem = make_problem(), with_inputs(make_problem(), setting)
    expected, found = method.solve(plain), method.solve(problem)
    found.check(problem)
    assert found.inputs == {} and hooks_of(problem.model) == 0
    for layer, own in found.layers.items():
        assert torch.equal(own.codes, expected.layers[layer].codes)
        assert own.objective == expected.layers[layer].objective


def test_the_control_is_trained_with_unquantized_inputs(make_problem: MakeProblem) -> None:
    control: FineTuning = qat(StraightThroughQAT).control()
    plain, problem = make_problem(), with_inputs(make_problem(), STATIC)
    assert control.train(problem).traces == control.train(plain).traces
    for layer, other in zip(problem.layers, plain.layers, strict=True):
        assert torch.equal(layer.module.weight, other.module.weight)


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


def test_how_inputs_are_quantized_is_told_with_the_layers_that_differ(make_problem: MakeProblem) -> None:
    problem = with_inputs(make_problem(), {"bits": 4})
    assert describe_inputs(problem) == "4 bits dynamic per_token, asymmetric"
    assert describe_inputs(make_problem()) is None
    wide = dataclasses.replace(problem.layers[0], activations=Activations(bits=8))
    block = dataclasses.replace(problem.blocks[0], layers=(wide, *problem.blocks[0].layers[1:]))
    problem = dataclasses.replace(problem, blocks=[block, *problem.blocks[1:]])
    assert describe_inputs(problem) == (
        f"4 bits dynamic per_token, asymmetric; {FIRST}: 8 bits dynamic per_token, asymmetric"
    )


def test_a_layer_without_inputs_has_no_static_range(make_problem: MakeProblem) -> None:
    problem = with_inputs(make_problem(), {"bits": 4, "scale": "static"})
    idle = target(nn.Linear(3, 3), bits=4, scale="static")
    blocks = [*problem.blocks, dataclasses.replace(problem.blocks[0], layers=(idle,))]
    with pytest.raises(CellError) as caught:
        input_ranges(dataclasses.replace(problem, blocks=blocks))
    assert str(caught.value) == (
        "layer 'layer' gets no input on the calibration data: there is no static range for its inputs "
        "(allowed here: scale: dynamic)"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_have_no_static_range(make_problem: MakeProblem, value: float) -> None:
    problem = with_inputs(make_problem(), {"bits": 4, "scale": "static"})
    with torch.no_grad():
        next(one for one in problem.layers if "gate_proj" in one.name).module.weight[0, 0] = value
    with pytest.raises(DivergedError, match=r"^the inputs of layer '.*down_proj' are NaN or infinite on the calibr"):
        input_ranges(problem)


def rounded(problem: Problem, **changed: Any) -> Solution:
    """Return the rounding to nearest with calibrated inputs, those of the first layer changed."""
    solution = RoundToNearest(name="rtn").solve(problem)
    inputs = static_params(problem, input_ranges(problem))
    inputs[FIRST] = dataclasses.replace(inputs[FIRST], **changed)
    return dataclasses.replace(solution, inputs=inputs)


def test_a_sound_solution_with_inputs_passes(make_problem: MakeProblem) -> None:
    problem = with_inputs(make_problem(), STATIC)
    rounded(problem).check(problem)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"scale": torch.full((1, 1), math.nan)},
            DivergedError,
            f"layer {FIRST!r} has an input scale or zero point that is not finite",
        ),
        (
            {"zero_point": torch.full((1, 1), math.inf)},
            DivergedError,
            f"layer {FIRST!r} has an input scale or zero point that is not finite",
        ),
        ({"scale": torch.zeros(1, 1)}, DivergedError, f"layer {FIRST!r} has an input scale that is not positive"),
        ({"scale": -torch.ones(1, 1)}, DivergedError, f"layer {FIRST!r} has an input scale that is not positive"),
        (
            {"zero_point": torch.full((1, 1), 16.0)},
            CellError,
            f"layer {FIRST!r} has an input zero point that is not a level of its grid",
        ),
        (
            {"zero_point": torch.full((1, 1), 0.5)},
            CellError,
            f"layer {FIRST!r} has an input zero point that is not a level of its grid",
        ),
        (
            {"scale": torch.ones(12, 1)},
            CellError,
            f"layer {FIRST!r} has an input scale and zero point of shapes (12, 1) and (1, 1), expected (1, 1) for both",
        ),
        (
            {"scale": torch.ones(1, 1, device="meta")},
            CellError,
            f"layer {FIRST!r} has an input scale on meta, expected cpu",
        ),
    ],
    ids=str,
)
def test_wrong_input_scales_are_refused(
    make_problem: MakeProblem, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    problem = with_inputs(make_problem(), STATIC)
    with pytest.raises(error) as caught:
        rounded(problem, **changed).check(problem)
    assert str(caught.value) == message


@pytest.mark.parametrize("setting", [None, {"bits": 4}], ids=["none", "dynamic"])
def test_input_scales_that_nobody_asked_for_are_refused(
    make_problem: MakeProblem, setting: dict[str, Any] | None
) -> None:
    solution = rounded(with_inputs(make_problem(), STATIC))
    problem = with_inputs(make_problem(), setting)
    with pytest.raises(CellError) as caught:
        solution.check(problem)
    assert str(caught.value) == f"the method gave an input scale of {FIRST!r}, whose inputs have no static range"


def test_input_scales_of_some_layers_are_refused(make_problem: MakeProblem) -> None:
    problem = with_inputs(make_problem(), STATIC)
    solution = rounded(problem)
    del solution.inputs[FIRST]
    with pytest.raises(CellError) as caught:
        solution.check(problem)
    assert str(caught.value) == f"the method left the input scale of layer {FIRST!r} out"


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


def test_the_deployed_weights_are_on_their_grid_with_quantized_inputs(make_problem: MakeProblem) -> None:
    problem = with_inputs(make_problem(), STATIC)
    solution = qat(LearnedStepSize).solve(problem)
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert torch.equal(dequantize(found.codes, found.grid), layer.module.weight)

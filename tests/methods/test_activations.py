"""Quantized inputs of layers: where they are and where they are not, and the static ranges and scales of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qbench.errors import CellError, DivergedError
from qbench.methods.layer_inputs import (
    QuantizedInput,
    describe_inputs,
    input_ranges,
    installed,
    quantized_inputs,
    static_params,
)
from qbench.methods.problem import Problem, Solution, TargetLayer
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.activations import Activations
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

FIRST = "model.layers.0.self_attn.q_proj"
STATIC: dict[str, Any] = {"bits": 4, "scale": "static", "range": "mse"}
POST_TRAINING: dict[str, dict[str, Any]] = {
    "rtn": {},
    "gptq": {},
    "adaround": {"iterations": 10},
    "brecq": {"iterations": 5},
    "block_ap": {"epochs": 1, "batch_size": 4},
}


def with_inputs(problem: Problem, setting: dict[str, Any] | None) -> Problem:
    """Return the problem with the inputs of its layers quantized."""
    activations = None if setting is None else Activations.model_validate(setting)

    def changed(layer: TargetLayer) -> TargetLayer:
        return dataclasses.replace(layer, activations=activations)

    blocks = [dataclasses.replace(block, layers=tuple(map(changed, block.layers))) for block in problem.blocks]
    return dataclasses.replace(problem, blocks=blocks)


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
    control = StraightThroughQAT(name="ste_qat", steps=3, batch_size=4).control()
    plain, problem = make_problem(), with_inputs(make_problem(), STATIC)
    assert control.train(problem).traces == control.train(plain).traces
    for layer, other in zip(problem.layers, plain.layers, strict=True):
        assert torch.equal(layer.module.weight, other.module.weight)


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

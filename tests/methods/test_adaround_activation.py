"""AdaRound's inputs and targets, and its loss behind an activation, on a small convolutional network of real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from qbench.methods.activations import activations_of
from qbench.methods.adaround import AdaRound
from qbench.methods.adaround_batches import BehindActivation
from qbench.methods.problem import Problem
from qbench.methods.soft_rounding import Neighbours
from qbench.methods.stage import Inputs
from qbench.quant.block_grid import fake_quantize

MakeProblem = Callable[..., Problem]
FAST: dict[str, Any] = {"batch_iterations": 250, "batch_learning_rate": 0.05, "batch_size": 16}


def asked(**changed: Any) -> AdaRound:
    return AdaRound.model_validate({"name": "adaround", **FAST, **changed})


def test_activations_are_found_where_the_output_comes_in_again(make_images_problem: MakeProblem) -> None:
    found = activations_of(make_images_problem())
    kinds = {name: (type(one.function), one.norm is not None) for name, one in found.items()}
    assert kinds == {
        "0.0": (nn.ReLU, True),
        "1.0": (nn.Hardswish, False),
        "1.2": (nn.ReLU6, True),
        "2.1": (nn.GELU, False),
    }


def test_the_gate_of_a_llama_has_an_activation(make_problem: MakeProblem) -> None:
    assert {name.rpartition(".")[2] for name in activations_of(make_problem())} == {"gate_proj"}


@pytest.mark.parametrize("name", ["0.0", "1.0", "1.2", "2.1"])
def test_the_output_is_what_the_network_makes_of_it(make_images_problem: MakeProblem, name: str) -> None:
    problem = make_images_problem()
    activation = activations_of(problem)[name]
    (layer,) = [one for one in problem.layers if one.name == name]
    seen: list[Tensor] = []
    after: list[Tensor] = []
    layer.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    activation.function.register_forward_hook(lambda _, args, output: after.append(output))
    problem.forward(problem.model, problem.calibration[0])
    groups = getattr(layer.module, "groups", 1)
    weight = layer.matrix().view(groups, -1, layer.matrix().shape[1])
    with torch.no_grad():
        found = BehindActivation(layer, activation, Inputs(seen, seen)).output(weight, seen[0])
    expected = after[0].permute(0, 2, 3, 1) if after[0].ndim == 4 else after[0]
    expected = expected.reshape(-1, groups, weight.shape[1]).transpose(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3])
def test_the_activation_form_is_better_behind_the_activation(make_images_problem: MakeProblem, bits: int) -> None:
    # Every layer has its full-precision inputs, so that both forms solve the same problem.
    common: dict[str, Any] = {"inputs": "full_precision", "true_sequential": False}
    behind = asked(objective="activation", batch_iterations=600, batch_learning_rate=0.03, **common)
    problem = make_images_problem(bits)
    solution, plain = behind.solve(problem), asked(**common).solve(make_images_problem(bits))
    solution.check(make_images_problem(bits))
    reference = make_images_problem(bits)
    activations = activations_of(reference)
    kept: dict[str, list[Tensor]] = {}
    for layer in reference.layers:
        layer.module.register_forward_pre_hook(
            lambda _, args, name=layer.name: kept.setdefault(name, []).append(args[0].detach().clone())
        )
    for batch in reference.calibration:
        reference.forward(reference.model, batch)
    better = 0
    for layer in reference.layers:
        found = solution.layers[layer.name]
        assert found.details["activation"] == float(layer.name in activations)
        down, up = (getattr(Neighbours.of(layer.matrix(), layer.grid), side) for side in ("down", "up"))
        assert ((found.codes == down) | (found.codes == up)).all()
        if layer.name not in activations:
            assert torch.equal(found.codes, plain.layers[layer.name].codes)
            continue
        own = BehindActivation(layer, activations[layer.name], Inputs(kept[layer.name], kept[layer.name]))
        full = layer.matrix().view(getattr(layer.module, "groups", 1), -1, layer.matrix().shape[1])
        pairs = own.batches(1000)
        with torch.no_grad():
            errors = [own.error(weight.reshape(full.shape), pairs, full) for weight in (
                found.weight(), plain.layers[layer.name].weight(), fake_quantize(layer.matrix(), layer.grid)
            )]  # fmt: skip
        assert errors[0] <= errors[1] * (1 + 1e-4) and errors[1] < errors[2]
        better += errors[0] < 0.99 * errors[1]
        assert found.details["activation_error"] < found.details["rtn_activation_error"]
    assert better


@pytest.mark.parametrize("objective", ["output", "activation"])
def test_twice_the_same(make_images_problem: MakeProblem, objective: str) -> None:
    first, second = (asked(objective=objective, batch_iterations=20).solve(make_images_problem()) for _ in range(2))
    for name, found in first.layers.items():
        assert torch.equal(found.codes, second.layers[name].codes)


@pytest.mark.parametrize("inputs", ["asymmetric", "quantized", "full_precision"])
def test_no_layer_is_worse_than_rounding_to_nearest(make_images_problem: MakeProblem, inputs: str) -> None:
    sequential = inputs != "full_precision"
    solution = asked(inputs=inputs, true_sequential=sequential).solve(make_images_problem())
    assert all(0 < one.objective < one.rtn_objective for one in solution.layers.values())


def test_inputs_choose_data(make_images_problem: MakeProblem) -> None:
    found = {
        inputs: asked(inputs=inputs, true_sequential=False).solve(make_images_problem(2)).layers
        for inputs in ("asymmetric", "quantized", "full_precision")
    }
    # The first block's inputs are nobody's outputs.
    first, last = "0.0", "2.1"
    codes = {inputs: layers[first].codes for inputs, layers in found.items()}
    assert torch.equal(codes["asymmetric"], codes["quantized"])
    assert torch.equal(codes["asymmetric"], codes["full_precision"])
    one, two, three = (layers[last].codes for layers in found.values())
    assert not torch.equal(one, two) and not torch.equal(two, three) and not torch.equal(one, three)


def test_quantized_inputs_of_a_block_need_a_quantized_block() -> None:
    with pytest.raises(ValidationError, match="inputs full_precision needs true_sequential false"):
        asked(inputs="full_precision", true_sequential=True)


@pytest.mark.parametrize("objective", ["output", "activation"])
def test_bfloat16_is_solved_in_float32(make_images_problem: MakeProblem, objective: str) -> None:
    problem = make_images_problem(dtype=torch.bfloat16)
    solution = asked(objective=objective, batch_iterations=20).solve(problem)
    solution.check(make_images_problem(dtype=torch.bfloat16))
    for layer in problem.layers:
        assert solution.layers[layer.name].codes.dtype == torch.float32
        assert torch.equal(layer.weight, solution.layers[layer.name].weight().to(torch.bfloat16).view_as(layer.weight))

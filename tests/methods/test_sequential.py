"""The walk through a model, against plain hooks on the whole model."""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.problem import Problem, TargetLayer
from qbench.methods.sequential import full_precision_hessians, walk
from qbench.methods.stage_error import output_power, stage_error
from qbench.quant.block_grid import fake_quantize

MakeProblem = Callable[..., Problem]

both_orders = pytest.mark.parametrize("true_sequential", [False, True])
with_and_without_targets = pytest.mark.parametrize("full_precision_targets", [False, True])


@torch.no_grad()
def inputs_of(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return every linear layer's inputs over all batches, of shape (tokens, in_features)."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen[name].append(args[0].reshape(-1, args[0].shape[-1]))
            )
    for batch in batches:
        model(input_ids=batch, use_cache=False)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def rounded(layer: TargetLayer) -> Tensor:
    return fake_quantize(layer.module.weight.detach(), layer.grid)


def assert_moments(found: Tensor, left: Tensor, right: Tensor) -> None:
    expected = (left.T @ right / len(left))[None]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@both_orders
@with_and_without_targets
def test_in_a_model_left_alone_the_moments_are_those_of_plain_hooks(
    make_problem: MakeProblem, true_sequential: bool, full_precision_targets: bool
) -> None:
    problem = make_problem()
    before = copy.deepcopy(problem.model.state_dict())
    expected = inputs_of(problem.model, problem.calibration)
    seen = []
    for stage in walk(problem, true_sequential=true_sequential, full_precision_targets=full_precision_targets):
        for part, own in zip(stage.parts, stage.places(), strict=True):
            for layer in part:
                seen.append(layer.name)
                x = expected[layer.name]
                for moments in (stage.gram.hessian, stage.gram.cross, stage.gram.target):
                    assert_moments(moments[own], x, x)
    assert seen == [layer.name for layer in problem.layers]
    after = problem.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in problem.model.modules())


@both_orders
@with_and_without_targets
def test_behind_quantized_layers_the_moments_are_those_of_the_model_with_these_weights(
    make_problem: MakeProblem, true_sequential: bool, full_precision_targets: bool
) -> None:
    problem = make_problem(bits=2)
    untouched = inputs_of(problem.model, problem.calibration)
    # The model as the walk is to see it: layers of the block in hand are in it only if it is truly sequential.
    expected_model = copy.deepcopy(problem.model)
    waiting: dict[str, Tensor] = {}
    block_in_hand = ""
    for stage in walk(problem, true_sequential=true_sequential, full_precision_targets=full_precision_targets):
        block = stage.layers[0].name.rpartition(".self_attn")[0] or stage.layers[0].name.rpartition(".mlp")[0]
        if true_sequential or block != block_in_hand:
            for name, weight in waiting.items():
                expected_model.get_submodule(name).weight.data.copy_(weight)
            waiting, block_in_hand = {}, block
        quantized = inputs_of(expected_model, problem.calibration)
        for layer in stage.layers:
            x, x_fp = quantized[layer.name], untouched[layer.name]
            assert_moments(stage.gram.hessian, x, x)
            if full_precision_targets:
                assert_moments(stage.gram.cross, x_fp, x)
                assert_moments(stage.gram.target, x_fp, x_fp)
            else:
                assert stage.gram.cross is stage.gram.hessian is stage.gram.target
        for layer in stage.layers:
            waiting[layer.name] = rounded(layer)
            layer.module.weight.data.copy_(waiting[layer.name])
    last = problem.layers[-1].name
    assert not torch.allclose(quantized[last], untouched[last], rtol=0.05)


@both_orders
def test_layers_with_one_input_share_a_stage(make_problem: MakeProblem, true_sequential: bool) -> None:
    problem = make_problem()
    stages = walk(problem, true_sequential=true_sequential, full_precision_targets=True)
    groups = [[layer.name.removeprefix("model.layers.") for layer in stage.layers] for stage in stages]
    assert groups == [
        [f"{index}.{name}" for name in names]
        for index in (0, 1)
        for names in (
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            ["self_attn.o_proj"],
            ["mlp.gate_proj", "mlp.up_proj"],
            ["mlp.down_proj"],
        )
    ]


def test_a_layer_that_is_no_target_is_left_out(make_problem: MakeProblem) -> None:
    problem = make_problem()
    blocks = [
        dataclasses.replace(block, layers=tuple(layer for layer in block.layers if "up_proj" in layer.name))
        for block in problem.blocks
    ]
    problem = dataclasses.replace(problem, blocks=blocks)
    expected = inputs_of(problem.model, problem.calibration)
    stages = list(walk(problem, true_sequential=False, full_precision_targets=False))
    assert [layer.name for stage in stages for layer in stage.layers] == [layer.name for layer in problem.layers]
    for stage in stages:
        x = expected[stage.layers[0].name]
        assert_moments(stage.gram.hessian, x, x)


def test_the_stage_error_is_the_mean_square_of_the_layer_s_output_error(make_problem: MakeProblem) -> None:
    problem = make_problem(bits=2)
    untouched = inputs_of(problem.model, problem.calibration)
    for stage in walk(problem, true_sequential=True, full_precision_targets=True):
        seen = inputs_of(problem.model, problem.calibration)
        for layer in stage.layers:
            weight, quantized = layer.module.weight.detach(), rounded(layer)
            wanted = untouched[layer.name].double() @ weight.double().T
            difference = wanted - seen[layer.name].double() @ quantized.double().T
            torch.testing.assert_close(
                stage_error(weight, quantized, stage.gram)[0].double(),
                difference.square().mean(dim=0),
                rtol=1e-3,
                atol=1e-5,
            )
            torch.testing.assert_close(
                output_power(weight, stage.gram)[0].double(), wanted.square().mean(dim=0), rtol=1e-4, atol=1e-5
            )
        for layer in stage.layers:
            layer.module.weight.data.copy_(rounded(layer))


def test_a_walk_that_is_left_early_leaves_no_hooks(make_problem: MakeProblem) -> None:
    problem = make_problem()
    stages = walk(problem, true_sequential=True, full_precision_targets=True)
    next(stages)
    stages.close()
    assert not any(module._forward_pre_hooks for module in problem.model.modules())


def test_without_blocks_there_are_no_stages(make_problem: MakeProblem) -> None:
    problem = dataclasses.replace(make_problem(), blocks=[])
    assert list(walk(problem, true_sequential=True, full_precision_targets=True)) == []


def test_full_precision_hessians(make_problem: MakeProblem) -> None:
    problem = make_problem()
    expected = inputs_of(problem.model, problem.calibration)
    found = full_precision_hessians(problem)
    assert list(found) == [layer.name for layer in problem.layers]
    for name, hessian in found.items():
        assert_moments(hessian, expected[name], expected[name])


def test_what_a_block_s_own_hook_does_to_its_input_is_done_once(make_problem: MakeProblem) -> None:
    problem = make_problem()
    problem.blocks[1].module.register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))
    expected = inputs_of(problem.model, problem.calibration)
    for name, hessian in full_precision_hessians(problem).items():
        assert_moments(hessian, expected[name], expected[name])


def test_a_block_that_knows_what_ran_before_it_is_refused(make_problem: MakeProblem) -> None:
    problem = make_problem()
    runs: list[int] = []
    problem.blocks[1].module.register_forward_hook(lambda _, args, output: output * len(runs) if runs else None)
    problem.blocks[0].module.register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(CellError, match=r"^block 1 gives other hidden states on its own than in the model$"):
        full_precision_hessians(problem)


def test_a_layer_that_is_called_twice_in_its_block_is_named(make_problem: MakeProblem) -> None:
    problem = make_problem()
    mlp = problem.blocks[0].module.mlp
    mlp.forward = lambda x: mlp.down_proj(mlp.gate_proj(x) * mlp.gate_proj(mlp.down_proj(mlp.up_proj(x))))
    with pytest.raises(CellError, match=r"^layer '.*gate_proj' is called more than once when its block runs: it has n"):
        full_precision_hessians(problem)


def test_hidden_states_that_are_no_numbers_are_said_to_be(make_problem: MakeProblem) -> None:
    problem = make_problem()
    problem.blocks[0].module.mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(CellError, match=r"^block 0 gives NaN or infinite hidden states on the calibration data$"):
        full_precision_hessians(problem)


def test_blocks_that_are_not_called_one_after_the_other_are_refused(make_problem: MakeProblem) -> None:
    problem = make_problem()
    backwards = dataclasses.replace(problem, blocks=problem.blocks[::-1])
    twice = dataclasses.replace(problem, forward=lambda model, batch: [problem.forward(model, batch) for _ in "ab"])
    for other in (backwards, twice):
        with pytest.raises(CellError, match=r"^the model does not call each of its blocks once, one after the other$"):
            full_precision_hessians(other)


def test_a_layer_whose_weight_is_used_without_calling_it_is_named(make_problem: MakeProblem) -> None:
    problem = make_problem()
    down = problem.blocks[0].module.mlp.down_proj
    problem.blocks[0].module.mlp.down_proj = torch.nn.Identity()
    problem.blocks[0].module.mlp.forward = lambda x: x @ down.weight[:, :16]
    with pytest.raises(CellError, match=r"^layer '.*gate_proj' is never called, though its block runs"):
        full_precision_hessians(problem)

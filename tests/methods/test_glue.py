"""Models that do more between their blocks than to hand tensors on: pooling, skips over blocks, work in place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import CellError
from qbench.methods.activations import activations_of
from qbench.methods.adaround import AdaRound
from qbench.methods.block_ap import BlockAP
from qbench.methods.block_calls import Stream, survey, whole_output
from qbench.methods.brecq import BRECQ
from qbench.methods.gptq import GPTQ
from qbench.methods.matrices import input_columns, is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.reconstruction import block_tasks
from qbench.methods.sequential import full_precision_hessians, walk
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

RULE = AbsMax(name="absmax")


class Mixed(nn.Module):
    """Takes what it is given under names of its own, and returns more than one value."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mix = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor, *, beside: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.depthwise(self.norm(x)))
        return self.mix(torch.cat([y, beside], dim=1)), y.mean(dim=(2, 3))


class Winding(nn.Module):
    """A layer whose output is worked on in place, a skip over two blocks, pooling, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.activation = nn.Hardswish(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.mixed = Mixed()
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        skipped = self.activation(self.stem(images))
        y = self.body(functional.max_pool2d(skipped, 3, 1, 1))
        y, means = self.mixed(x=y, beside=skipped)
        y = functional.avg_pool2d(y.add_(skipped), 4).flatten(1)
        return self.head(y + means)


def winding() -> Winding:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Winding()
        for _ in range(5):
            model(torch.randn(16, 2, 4, 4))
    return model.eval()


def make_problem(bits: int = 2, blocks: Sequence[str] = ("stem", "body", "mixed", "head")) -> Problem:
    model = winding()
    images = torch.randn(14, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for name in blocks:
        block = model.get_submodule(name)
        layers = [(f"{name}.{inner}".rstrip("."), one) for inner, one in block.named_modules() if is_matrix_layer(one)]
        targets = [
            TargetLayer(full, one, choose_grid(to_matrix(one, one.weight), RULE, bits), RULE) for full, one in layers
        ]
        found.append(Block(block, tuple(targets)))
    return Problem(
        model=model.requires_grad_(requires_grad=False),
        blocks=found,
        calibration=images.split(5),
        forward=lambda model, batch: model(batch),
        loss=lambda model, batch: functional.cross_entropy(model(batch), torch.arange(len(batch)) % 5),
        train_batches=lambda batch_size, seed: iter([images[:batch_size]]),
        tokens_of=len,
        seed_of=len,
    )


@torch.no_grad()
def columns_of(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return every layer's input columns, found with plain hooks on a copy of the whole model."""
    model = copy.deepcopy(model)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if is_matrix_layer(module):
            module.register_forward_pre_hook(
                lambda module, args, name=name: seen.setdefault(name, []).append(input_columns(module, args[0]))
            )
    for batch in batches:
        model(batch)
    return {name: torch.cat(parts, dim=1) for name, parts in seen.items()}


@torch.no_grad()
def traffic_of(problem: Problem, name: str) -> tuple[Tensor, Tensor]:
    """Return what a block is given first, and what it returns first, in a run of the whole model."""
    given: list[Tensor] = []
    made: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given.append((args[0] if args else kwargs["x"]).clone())
        made.append((output[0] if isinstance(output, tuple) else output).clone())

    hook = problem.model.get_submodule(name).register_forward_hook(note, with_kwargs=True)
    for batch in problem.calibration:
        problem.model(batch)
    hook.remove()
    return torch.cat(given), torch.cat(made)


def rounded(layer: TargetLayer) -> Tensor:
    return fake_quantize(layer.matrix(), layer.grid)


def moments(left: Tensor, right: Tensor) -> Tensor:
    return left.mT @ right / left.shape[1]


@pytest.mark.parametrize("true_sequential", [False, True])
def test_behind_quantized_layers_the_moments_are_those_of_the_model_with_these_weights(true_sequential: bool) -> None:
    problem = make_problem()
    untouched = columns_of(problem.model, problem.calibration)
    expected_model = copy.deepcopy(problem.model)
    waiting: dict[str, TargetLayer] = {}
    in_hand = ""
    for stage in walk(problem, true_sequential=true_sequential, full_precision_targets=True):
        block = stage.layers[0].name.partition(".")[0]
        if true_sequential or block != in_hand:
            for name, layer in waiting.items():
                expected_model.get_submodule(name).weight.copy_(layer.weight)
            waiting, in_hand = {}, block
        seen = columns_of(expected_model, problem.calibration)
        for part, own in zip(stage.parts, stage.places(), strict=True):
            x, x_fp = seen[part[0].name], untouched[part[0].name]
            torch.testing.assert_close(stage.gram.hessian[own], moments(x, x), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(stage.gram.cross[own], moments(x_fp, x), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(stage.gram.target[own], moments(x_fp, x_fp), rtol=1e-4, atol=1e-5)
        for layer in stage.layers:
            layer.write(rounded(layer))
            waiting[layer.name] = layer
    assert not torch.allclose(seen["head"], untouched["head"], rtol=0.05)


def test_full_precision_inputs_are_those_of_the_model_as_it_was() -> None:
    problem = make_problem()
    untouched = columns_of(problem.model, problem.calibration)
    for stage in walk(problem, true_sequential=False, quantized_inputs=False):
        for part, own in zip(stage.parts, stage.places(), strict=True):
            x = untouched[part[0].name]
            torch.testing.assert_close(stage.gram.hessian[own], moments(x, x), rtol=1e-4, atol=1e-5)
        for layer in stage.layers:
            layer.write(rounded(layer))


@pytest.mark.parametrize("batch_size", [2, 100])
def test_block_tasks_have_inputs_of_the_quantized_model_and_targets_of_the_full_one(batch_size: int) -> None:
    problem, untouched = make_problem(), make_problem()
    names = ["stem", "body", "mixed", "head"]
    for name, task in zip(names, block_tasks(problem, batch_size), strict=True):
        given, _ = traffic_of(problem, name)
        _, made = traffic_of(untouched, name)
        torch.testing.assert_close(torch.cat([one.seen for one in task.batches]), given, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.cat([one.target for one in task.batches]), made, rtol=1e-4, atol=1e-5)
        if name == "mixed":
            skipped = torch.cat([one.rest.kwargs["beside"] for one in task.batches])
            torch.testing.assert_close(
                skipped, functional.hardswish(problem.model.stem(torch.cat(list(problem.calibration))))
            )
        for layer in task.block.layers:
            layer.write(rounded(layer))


def test_with_its_own_weights_and_inputs_a_block_has_no_error() -> None:
    for task in block_tasks(make_problem(), 4):
        assert task.error([layer.matrix() for layer in task.block.layers]) < 1e-10
        assert task.rtn_error() > 1e-6


@pytest.mark.parametrize(
    "method",
    [
        GPTQ(name="gptq"),
        AdaRound(name="adaround", iterations=20, objective="activation", batch_iterations=5),
        AdaRound(name="adaround", iterations=20, true_sequential=False, inputs="full_precision"),
        BRECQ(name="brecq", iterations=10, init="adaround"),
        BRECQ(name="brecq", iterations=10, loss="fisher"),
        BlockAP(name="block_ap", epochs=1),
    ],
    ids=["gptq", "activation", "full_precision", "brecq", "fisher", "block_ap"],
)
def test_methods_solve_it_and_leave_all_but_weights_alone(method: Any) -> None:
    problem = make_problem()
    before = copy.deepcopy(problem.model.state_dict())
    solution = method.solve(problem)
    solution.check(problem)
    targets = {f"{layer.name}.weight" for layer in problem.layers}
    for name, value in problem.model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in targets)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in problem.model.modules())
    assert not any("forward" in vars(module) for module in problem.model.modules())


def test_fisher_weights_are_the_squared_gradients_of_a_model_without_work_in_place() -> None:
    problem = make_problem()
    tasks = list(block_tasks(problem, 100, fisher=True))
    found = {
        name: torch.cat([one.weight for one in task.batches])
        for name, task in zip(("stem", "mixed"), tasks[::2], strict=True)
    }
    for name, weight in found.items():
        parts = []
        for batch in problem.calibration:
            shape = traffic_of(problem, name)[1].shape[1:]
            nudge = torch.zeros(len(batch), *shape, requires_grad=True)
            hook = problem.model.get_submodule(name).register_forward_hook(
                lambda _, args, output, nudge=nudge: (
                    (output[0] + nudge, *output[1:]) if isinstance(output, tuple) else output + nudge
                )
            )
            (gradient,) = torch.autograd.grad(problem.loss(problem.model, batch), nudge)
            hook.remove()
            parts.append((gradient * len(batch)).square())
        expected = torch.cat(parts)
        torch.testing.assert_close(weight, expected / expected.mean(), rtol=1e-3, atol=1e-5)


def test_an_activation_between_blocks_is_found() -> None:
    problem = make_problem()
    found = activations_of(problem)
    assert set(found) == {"stem", "body.0"}
    assert found["stem"].function is problem.model.activation and found["stem"].norm is None
    assert found["body.0"].norm is problem.model.body[1]


def test_blocks_of_a_chain_are_run_alone_and_nothing_in_between() -> None:
    """Outputs are not kept, and the model is run no further than to its first block."""
    problem = make_problem()
    chain = nn.Sequential(problem.model.stem, problem.model.body, nn.Sequential(nn.Flatten(), nn.Linear(128, 5))).eval()
    entered: list[int] = []
    blocks = [Block(block, ()) for block in chain]
    problem = dataclasses.replace(
        problem, model=chain, blocks=blocks, forward=lambda model, batch: (entered.append(len(batch)), model(batch))
    )
    shown = survey(problem)
    assert shown.is_chain and shown.hands_on
    entered.clear()
    stream = Stream(problem, problem.calibration, shown)
    for block in blocks:
        stream.advance(whole_output(block.module, call) for call in stream.calls)
    assert entered == [5, 5, 4] and stream._outputs == [[], [], []] and stream.calls == []


def test_glue_is_seen_where_there_is_some() -> None:
    shown = survey(make_problem())
    assert not shown.is_chain and shown.finite == [True] * 4
    assert shown.changed == {0, 2}


def test_only_some_blocks_of_a_model_may_be_quantized() -> None:
    """What is left out runs as it is, between the others."""
    problem = make_problem(blocks=("stem", "head"))
    expected = columns_of(problem.model, problem.calibration)
    found = full_precision_hessians(problem)
    assert set(found) == {"stem", "head"}
    for name, hessian in found.items():
        torch.testing.assert_close(hessian, moments(expected[name], expected[name]), rtol=1e-4, atol=1e-5)


def refused(problem: Problem, message: str) -> None:
    for attempt in (full_precision_hessians, lambda problem: next(block_tasks(problem, 4))):
        with pytest.raises(CellError) as caught:
            attempt(problem)
        assert str(caught.value) == message
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in problem.model.modules())


@pytest.mark.parametrize("blocks", [("body", "stem"), ("stem", "stem")], ids=str)
def test_blocks_out_of_order_are_refused(blocks: tuple[str, ...]) -> None:
    refused(make_problem(blocks=blocks), "the model does not call each of its blocks once, one after the other")


def test_a_block_that_is_never_called_is_refused() -> None:
    problem = make_problem()
    problem.model.idle = nn.Linear(2, 2)
    problem = dataclasses.replace(problem, blocks=[*problem.blocks, Block(problem.model.idle, ())])
    refused(problem, "the model does not call each of its blocks once, one after the other")


def test_a_block_without_a_tensor_is_refused() -> None:
    problem = make_problem(blocks=("stem",))
    problem.model.forward = lambda images: problem.model.stem(input=[images], scale=2)
    refused(problem, "a block is called without a tensor (given: input, scale)")


def test_a_block_that_changes_its_input_is_refused() -> None:
    problem = make_problem()
    problem.model.body.insert(0, nn.Hardswish(inplace=True))
    refused(problem, "block 1 changes its input in place: it cannot be run again on the same input")


def test_a_block_that_changes_nothing_in_place_that_matters_is_not_refused() -> None:
    problem = make_problem()
    problem.model.activation = nn.ReLU(inplace=True)
    problem.model.body = nn.Sequential(nn.ReLU(inplace=True), problem.model.body)
    blocks = list(problem.blocks)
    blocks[1] = Block(problem.model.body, blocks[1].layers)
    problem = dataclasses.replace(problem, blocks=blocks)
    expected = columns_of(problem.model, problem.calibration)
    expected["body.0"] = expected.pop("body.1.0")
    for name, hessian in full_precision_hessians(problem).items():
        torch.testing.assert_close(hessian, moments(expected[name], expected[name]), rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_never_called_is_named() -> None:
    problem = make_problem()
    problem.model.mixed.forward = lambda x, beside: (problem.model.mixed.depthwise(x), x.mean(dim=(2, 3)))
    refused(problem, "layer 'mixed.mix' is never called, though its block runs: its inputs cannot be seen")

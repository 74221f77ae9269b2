"""Methods on models of torchvision that do more between their blocks, with random weights and small images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.methods.activations import activations_of
from qbench.methods.adaround import AdaRound
from qbench.methods.block_ap import BlockAP
from qbench.methods.brecq import BRECQ
from qbench.methods.gptq import GPTQ
from qbench.methods.matrices import input_columns, is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.reconstruction import block_tasks
from qbench.methods.sequential import walk
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.tasks.blocks import find_blocks
from qbench.tasks.torchvision_ops import declare_missing_operators

MakeProblem = Callable[[], Problem]

RULE = AbsMax(name="absmax")
MODELS = ["front of resnet18", "mobilenet_v2", pytest.param("resnet18", marks=pytest.mark.slow)]


def torchvision_model(name: str) -> nn.Module:
    declare_missing_operators()
    from torchvision import models

    if name == "mobilenet_v2":
        return models.mobilenet_v2(weights=None, width_mult=0.25, num_classes=4)
    model = models.resnet18(weights=None, num_classes=4)
    if name == "front of resnet18":  # all that lies between its blocks, a tenth of the work
        model.layer3, model.layer4, model.fc = nn.Identity(), nn.Identity(), nn.Linear(128, 4)
    return model


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.3


@pytest.fixture(scope="module", params=MODELS)
def make_problem(request: pytest.FixtureRequest) -> MakeProblem:
    """Return a function that makes a problem of its own of a model with statistics of real activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        original = torchvision_model(request.param)
        for seed in range(3):
            original(images(16, seed))
    original.eval().requires_grad_(requires_grad=False)
    names = [name for name, _ in find_blocks(original, images(1, 0))]

    def make() -> Problem:
        model = copy.deepcopy(original)
        blocks = []
        for name in names:
            block = model.get_submodule(name)
            layers = [
                (f"{name}.{inner}".rstrip("."), one) for inner, one in block.named_modules() if is_matrix_layer(one)
            ]
            targets = [
                TargetLayer(full, one, choose_grid(to_matrix(one, one.weight), RULE, 3), RULE) for full, one in layers
            ]
            blocks.append(Block(block, tuple(targets)))
        return Problem(
            model=model,
            blocks=blocks,
            calibration=images(8, 9).split(5),
            forward=lambda model, batch: model(batch),
            loss=lambda model, batch: functional.cross_entropy(model(batch), torch.arange(len(batch)) % 4),
            train_batches=lambda batch_size, seed: iter([images(batch_size, seed)]),
            tokens_of=len,
            seed_of=len,
        )

    return make


@torch.no_grad()
def inputs_of(model: nn.Module, batches: Any) -> dict[str, Tensor]:
    """Return what each layer is given, found with plain hooks on a copy of the whole model."""
    model = copy.deepcopy(model)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if is_matrix_layer(module):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].clone())
            )
    for batch in batches:
        model(batch)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def moments(layer: TargetLayer, left: Tensor, right: Tensor) -> Tensor:
    one, other = (input_columns(layer.module, x) for x in (left, right))
    return one.mT @ other / one.shape[1]


def assert_moments(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_moments_are_those_of_plain_hooks_in_the_quantized_and_the_full_model(make_problem: MakeProblem) -> None:
    """What a layer is given depends on the layers before it alone: the model that holds all codes shows it too."""
    problem = make_problem()
    full = inputs_of(problem.model, problem.calibration)
    found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for stage in walk(problem, true_sequential=True, full_precision_targets=True):
        for part, own in zip(stage.parts, stage.places(), strict=True):
            for layer in part:
                found[layer.name] = (stage.gram.hessian[own], stage.gram.cross[own], stage.gram.target[own])
        for layer in stage.layers:
            layer.write(fake_quantize(layer.matrix(), layer.grid))
    quantized = inputs_of(problem.model, problem.calibration)
    assert set(found) == set(full)
    for layer in problem.layers:
        x, x_fp = quantized[layer.name], full[layer.name]
        hessian, cross, target = found[layer.name]
        assert_moments(hessian, moments(layer, x, x))
        assert_moments(cross, moments(layer, x_fp, x))
        assert_moments(target, moments(layer, x_fp, x_fp))
    last = problem.layers[-1].name
    assert not torch.allclose(quantized[last], full[last], rtol=0.05)


def test_inputs_and_targets_of_blocks_are_those_of_the_models(make_problem: MakeProblem) -> None:
    problem, untouched = make_problem(), make_problem()

    @torch.no_grad()
    def traffic(owner: Problem, index: int) -> tuple[Tensor, Tensor]:
        parts: list[tuple[Tensor, Tensor]] = []
        hook = owner.blocks[index].module.register_forward_hook(
            lambda _, args, output: parts.append((args[0].clone(), output.clone()))
        )
        for batch in owner.calibration:
            owner.model(batch)
        hook.remove()
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    for index, task in enumerate(block_tasks(problem, 4)):
        given, _ = traffic(problem, index)
        _, made = traffic(untouched, index)
        torch.testing.assert_close(torch.cat([one.seen for one in task.batches]), given, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(torch.cat([one.target for one in task.batches]), made, rtol=1e-3, atol=1e-4)
        for layer in task.block.layers:
            layer.write(fake_quantize(layer.matrix(), layer.grid))


@pytest.mark.parametrize(
    "method",
    [
        GPTQ(name="gptq"),
        AdaRound(name="adaround", iterations=10, cd_sweeps=1),
        BRECQ(name="brecq", iterations=3, batch_size=4),
        BlockAP(name="block_ap", epochs=1, batch_size=4),
    ],
    ids=lambda method: method.name,
)
def test_a_method_solves_it_and_leaves_all_but_weights_alone(make_problem: MakeProblem, method: Any) -> None:
    problem = make_problem()
    before = copy.deepcopy(problem.model.state_dict())
    solution = method.solve(problem)
    solution.check(problem)
    targets = {f"{layer.name}.weight" for layer in problem.layers}
    assert {
        name for name, value in problem.model.state_dict().items() if not torch.equal(value, before[name])
    } == targets
    assert not any(module.training for module in problem.model.modules())
    if method.name in {"gptq", "adaround"}:
        for found in solution.layers.values():
            assert found.fallback is None and found.objective is not None and found.rtn_objective is not None
        better = [found.objective <= found.rtn_objective * 1.001 for found in solution.layers.values()]
        assert sum(better) >= 0.9 * len(better)


def test_activations_are_found_behind_batch_norms_in_blocks_and_between(make_problem: MakeProblem) -> None:
    problem = make_problem()
    found = activations_of(problem)
    first = problem.layers[0]
    assert found[first.name].norm is not None
    for name, activation in found.items():
        assert isinstance(activation.function, nn.ReLU | nn.ReLU6), name
    assert len(found) >= len(problem.layers) / 3

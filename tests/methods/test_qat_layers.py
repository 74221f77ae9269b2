"""Quantization-aware training of every kind of layer and model: convolutions, transposed weights, short types."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from qbench.errors import CellError, DivergedError
from qbench.methods.fine_tune import FineTuning
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.qat import StraightThroughWeight
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

GRIDS: list[dict[str, Any]] = [
    {},
    {"symmetric": False},
    {"convention": "larger_side"},
    {"convention": "narrow_range", "granularity": {"per_group": 4}},
]


class Tokens(nn.Module):
    """Turn channels into the last dimension, so that a layer for tokens can follow a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2).contiguous()


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        Tokens(),
        Conv1D(12, 8),
        nn.Flatten(),
        nn.Linear(192, 10),
    )
    nn.init.normal_(model[8].weight, std=0.3)
    with torch.no_grad():
        model(images())  # running statistics that differ from 0 and 1
    return model.eval().to(dtype)


def images() -> Tensor:
    return torch.tensor(load_digits().images[:96] / 16, dtype=torch.float32)[:, None]


def predict(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return model(batch[0].to(next(model.parameters()).dtype)), batch[1]


def loss(model: nn.Module, batch: Any) -> Tensor:
    logits, targets = predict(model, batch)
    return functional.cross_entropy(logits.float(), targets)


def train_batches(batch_size: int, seed: int) -> Iterator[Any]:
    targets = torch.tensor(load_digits().target[:96])
    generator = torch.Generator().manual_seed(seed)
    while True:
        drawn = torch.randint(0, 96, (batch_size,), generator=generator)
        yield images()[drawn], targets[drawn]


def make_problem(
    bits: int = 3, dtype: torch.dtype = torch.float32, *, with_quantizer: bool = True, **grid: Any
) -> Problem:
    model = network(dtype)
    rule = AbsMax.model_validate({"name": "absmax", **grid})
    layers = tuple(
        TargetLayer(
            name,
            module,
            choose_grid(to_matrix(module, module.weight.detach()), rule, bits),
            rule if with_quantizer else None,
        )
        for name, module in model.named_modules()
        if is_matrix_layer(module)
    )
    return Problem(
        model=model,
        blocks=[Block(model, layers)],
        calibration=[],
        forward=lambda model, batch: model(batch[0]),
        loss=loss,
        train_batches=train_batches,
        tokens_of=lambda batch: len(batch[0]),
        seed_of=lambda purpose: 0,
        predict=predict,
    )


def ste(**options: Any) -> StraightThroughQAT:
    return StraightThroughQAT.model_validate({"name": "ste_qat", "steps": 4, "learning_rate": 0.02, **options})


def lsq(**options: Any) -> LearnedStepSize:
    return LearnedStepSize.model_validate({"name": "lsq", "steps": 4, "learning_rate": 0.02, **options})


both = pytest.mark.parametrize("method", [ste, lsq])


@both
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_kind_of_layer_is_trained(method: Any, grid: dict[str, Any], dtype: torch.dtype) -> None:
    problem = make_problem(dtype=dtype, **grid)
    before = {layer.name: quantize(layer.matrix(), layer.grid) for layer in problem.layers}
    solution = method().solve(problem)
    solution.check(problem)
    assert len(solution.layers) == 5
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert (found.codes != before[layer.name]).any()
        # What the model was left with is what is deployed, in its own type.
        assert torch.equal(to_matrix(layer.module, layer.weight), found.weight().to(dtype))
        assert torch.equal(found.grid.zero_point, layer.grid.zero_point)


@both
def test_the_order_of_memory_changes_nothing(method: Any) -> None:
    plain, other = make_problem(), make_problem()
    other.model.to(memory_format=torch.channels_last)
    assert not other.layers[1].module.weight.is_contiguous()
    first, second = method().solve(plain), method().solve(other)
    assert first.traces["train_loss"] == pytest.approx(second.traces["train_loss"], rel=1e-4)
    for name, found in first.layers.items():
        assert (found.codes != second.layers[name].codes).float().mean() < 0.01
    for layer in other.layers:
        assert torch.equal(layer.matrix(), second.layers[layer.name].weight())


@both
def test_a_layer_that_is_not_run_stays(method: Any) -> None:
    problem, unused = make_problem(), nn.Linear(4, 3)
    layer = TargetLayer("unused", unused, choose_grid(unused.weight, AbsMax(name="absmax"), 3))
    problem = dataclasses.replace(problem, blocks=[*problem.blocks, Block(unused, (layer,))])
    expected = quantize(unused.weight.detach(), layer.grid)
    assert torch.equal(method().solve(problem).layers["unused"].codes, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_updates_far_below_the_spacing_of_a_short_type_add_up(dtype: torch.dtype) -> None:
    linear = nn.Linear(2, 1, bias=False).to(dtype)
    linear.weight.data = torch.tensor([[1.0, 0.5]], dtype=dtype)
    layer = TargetLayer("layer", linear, choose_grid(linear.weight.float(), AbsMax(name="absmax"), 4))
    weight = StraightThroughWeight(layer, ste())
    weight.write()
    optimizer = torch.optim.SGD([weight.latent], lr=1.0)
    tiny = torch.finfo(dtype).eps / 64
    for _ in range(3):
        linear.weight.grad = torch.full((1, 2), tiny, dtype=dtype)
        weight.take_gradient()
        optimizer.step()
        weight.write()
    torch.testing.assert_close(weight.latent.detach(), torch.tensor([[1.0, 0.5]]) - 3 * tiny, rtol=1e-6, atol=0)
    assert weight.latent.dtype == torch.float32 and linear.weight.dtype == dtype
    assert torch.equal(torch.ones(1, dtype=dtype) - tiny, torch.ones(1, dtype=dtype))


def test_codes_come_from_the_float32_latent() -> None:
    """A latent just below a tie, which bfloat16 would round on to the tie or over it."""
    linear = nn.Linear(2, 1, bias=False).bfloat16()
    linear.weight.data = torch.tensor([[3.5, 1.0]], dtype=torch.bfloat16)
    grid = choose_grid(torch.tensor([[3.5, 1.0]]), AbsMax(name="absmax", convention="narrow_range"), 4)
    weight = StraightThroughWeight(TargetLayer("layer", linear, grid), ste())
    with torch.no_grad():
        weight.latent[0, 1] = 0.74999
    weight.write()
    assert weight.solution().codes.tolist() == [[7.0, 1.0]]
    assert quantize(weight.latent.detach().bfloat16().float(), grid).tolist() == [[7.0, 2.0]]
    assert torch.equal(linear.weight.float(), fake_quantize(weight.latent.detach(), grid))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_dynamic_scale_is_that_of_the_latent_weight(grid: dict[str, Any]) -> None:
    problem = make_problem(**grid)
    rule, options = problem.layers[0].quantizer, ste(scale="dynamic")
    weight = StraightThroughWeight(problem.layers[3], options)
    for factor in (1.0, 0.5, 3.0):
        with torch.no_grad():
            weight.latent.mul_(factor)
        weight.write()
        matrix = to_matrix(weight.layer.module, weight.latent.detach())
        expected = choose_grid(matrix, rule, 3)
        assert torch.equal(weight.grid().scale, expected.scale)
        assert torch.equal(weight.layer.matrix(), fake_quantize(matrix, expected))
    frozen, dynamic = (ste(scale=scale).solve(make_problem(**grid)) for scale in ("frozen", "dynamic"))
    first = make_problem(**grid).layers[1]
    assert torch.equal(frozen.layers[first.name].grid.scale, first.grid.scale)
    assert (dynamic.layers[first.name].grid.scale != first.grid.scale).any()
    dynamic.check(make_problem(**grid))


def test_a_dynamic_scale_needs_a_quantizer() -> None:
    with pytest.raises(CellError) as caught:
        ste(scale="dynamic").solve(make_problem(with_quantizer=False))
    assert str(caught.value) == (
        "layer '0' has a grid but no quantizer, which scale: dynamic needs to choose scales again "
        "(allowed here: scale: frozen)"
    )


def test_a_latent_weight_that_is_not_finite_is_told() -> None:
    problem = make_problem()
    calls = itertools.count()

    def broken(model: nn.Module, batch: Any) -> Tensor:
        found = loss(model, batch)
        return found + (found - found.detach()) * (float("inf") if next(calls) == 1 else 0.0)

    problem = dataclasses.replace(problem, loss=broken)
    with pytest.raises(DivergedError) as caught:
        ste(scale="dynamic", optimizer="sgd", clip_norm=None).solve(problem)
    assert str(caught.value) == "the latent weight of layer '0' became NaN or infinite"


METHODS: list[Any] = [
    lambda **options: ste(**options).solve,
    lambda **options: lsq(**options).solve,
    lambda **options: FineTuning.model_validate({"name": "fine_tune", "steps": 4, **options}).train,
]


@pytest.mark.parametrize("make", METHODS)
def test_frozen_batch_norm_keeps_the_running_statistics_in_training_too(make: Any) -> None:
    problem = make_problem()
    before = copy.deepcopy(problem.model.state_dict())
    seen = []
    problem.model[1].register_forward_hook(lambda module, given, result: seen.append((given[0], result)))
    assert make(bn_training="freeze")(problem).statistics == {}
    with torch.no_grad():
        expected = problem.model[1].eval()(seen[0][0])
    torch.testing.assert_close(seen[0][1], expected)
    assert all(torch.equal(before[name], problem.model.state_dict()[name]) for name in before if "running" in name)


@pytest.mark.parametrize("make", METHODS)
def test_updated_batch_norm_follows_the_batches_and_is_handed_back(make: Any) -> None:
    problem = make_problem()
    before = copy.deepcopy(problem.model.state_dict())
    mean, inputs = problem.model[1].running_mean.clone(), []
    problem.model[1].register_forward_hook(lambda module, given, result: inputs.append(given[0].detach()))
    found = make(bn_training="update")(problem)
    for batch in inputs:
        mean.lerp_(batch.mean(dim=(0, 2, 3)), problem.model[1].momentum)
    names = {f"{index}.{part}" for index in (1, 4) for part in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(found.statistics) == names
    torch.testing.assert_close(found.statistics["1.running_mean"], mean)
    assert int(found.statistics["4.num_batches_tracked"]) == int(before["4.num_batches_tracked"]) + 4
    after = problem.model.state_dict()
    assert all(
        torch.equal(before[f"{index}.{part}"], after[f"{index}.{part}"])
        for index in (1, 4)
        for part in ("weight", "bias")
    )

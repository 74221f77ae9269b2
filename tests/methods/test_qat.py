"""Quantization-aware training against loops written by hand, step by step."""

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

from qbench.errors import DivergedError
from qbench.methods.base import Method
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.problem import Problem, Solution, TargetLayer
from qbench.methods.qat import LearnedStepWeight
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

MakeProblem = Callable[..., Problem]

STEPS = 3
GRIDS: list[dict[str, Any]] = [
    {},
    {"granularity": "per_tensor", "symmetric": False},
    {"granularity": {"per_group": 12}, "symmetric": False},
]
both = pytest.mark.parametrize("kind", [StraightThroughQAT, LearnedStepSize])
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def ste(**options: Any) -> StraightThroughQAT:
    return StraightThroughQAT.model_validate({"name": "ste_qat", "steps": STEPS, "batch_size": 4, **options})


def lsq(**options: Any) -> LearnedStepSize:
    return LearnedStepSize.model_validate({"name": "lsq", "steps": STEPS, "batch_size": 4, **options})


def round_with_gradient(latent: Tensor, scale: Tensor, layer: TargetLayer, *, masked: bool, learned: bool) -> Tensor:
    """Return the quantized weight; detaching makes autograd do what the straight-through papers write down."""
    scale, zero_point = layer.grid.with_scale(scale).by_column(latent.shape[1])
    low, high = layer.grid.levels.quant_min - zero_point, layer.grid.levels.quant_max - zero_point
    ratio = latent / scale
    level = torch.minimum(torch.maximum(ratio.detach().round(), low), high)
    if not masked:
        return (level * scale - latent).detach() + latent
    if learned:
        # The paper's cases: a weight on the last level counts as clipped.
        inside = (ratio + zero_point > layer.grid.levels.quant_min) & (ratio + zero_point < layer.grid.levels.quant_max)
    else:
        inside = (ratio >= low) & (ratio <= high)
    return torch.where(inside, (level - ratio).detach() + ratio, level) * scale


def by_hand(
    problem: Problem, options: StraightThroughQAT | LearnedStepSize
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """Return codes, scales and losses of training without parametrizations: the quantized weight is put in by value."""
    learned = isinstance(options, LearnedStepSize)
    latents = {layer.name: layer.module.weight.detach().clone().requires_grad_() for layer in problem.layers}
    scales = {layer.name: layer.grid.scale.clone().requires_grad_(learned) for layer in problem.layers}
    rates: list[tuple[Tensor, float]] = []
    gains: list[float] = []
    for layer in problem.layers:
        rates.append((latents[layer.name], options.learning_rate))
        gains.append(1.0)
        if learned:
            rates.append((scales[layer.name], options.learning_rate * float(layer.grid.scale.mean())))
            levels, shares = layer.grid.levels, options.gradient_scale == "step"
            top = levels.quant_max if levels.symmetric else 2 ** (levels.bits - 1) - 1
            gains.append(1 / math.sqrt(layer.module.weight.numel() / (layer.grid.scale.numel() if shares else 1) * top))
    if options.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD([{"params": [p], "lr": r} for p, r in rates], momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(
            [{"params": [p], "lr": r} for p, r in rates], betas=(0.9, 0.95), weight_decay=0.0, fused=False
        )

    losses = []
    batches = problem.train_batches(options.batch_size, problem.seed_of("train-batches"))
    for step, batch in enumerate(itertools.islice(batches, options.steps)):
        parameters = {}
        for layer in problem.layers:
            masked = learned or options.gradient == "masked"
            parameters[f"{layer.name}.weight"] = round_with_gradient(
                latents[layer.name], scales[layer.name], layer, masked=masked, learned=learned
            )

        def call(model: nn.Module, parameters: dict[str, Tensor] = parameters, **arguments: Any) -> Any:
            return torch.func.functional_call(model, parameters, kwargs=arguments)

        loss = problem.loss(lambda **arguments: call(problem.model, **arguments), batch)
        everything = [parameter for parameter, _ in rates]
        found = torch.autograd.grad(loss, everything)
        gradients = [gradient * gain for gradient, gain in zip(found, gains, strict=True)]
        length = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        shrink = min(1.0, options.clip_norm / (length + 1e-6)) if options.clip_norm else 1.0
        for parameter, gradient in zip(everything, gradients, strict=True):
            parameter.grad = gradient * shrink
        for group, (_, rate) in zip(optimizer.param_groups, rates, strict=True):
            cosine = options.schedule == "cosine"
            group["lr"] = rate * (1 + math.cos(math.pi * step / options.steps)) / 2 if cosine else rate
        optimizer.step()
        with torch.no_grad():
            for layer in problem.layers if learned else []:
                scales[layer.name].copy_(scales[layer.name].maximum(layer.grid.scale / 1000))
        losses.append(loss.item())
    grids = {layer.name: layer.grid.with_scale(scales[layer.name].detach()) for layer in problem.layers}
    codes = {name: quantize(latent.detach(), grids[name]) for name, latent in latents.items()}
    return codes, {name: grid.scale for name, grid in grids.items()}, losses


def assert_same(solution: Solution, expected: tuple[dict[str, Tensor], dict[str, Tensor], list[float]]) -> None:
    codes, scales, losses = expected
    assert solution.traces["train_loss"] == pytest.approx(losses, rel=1e-4)
    assert set(solution.layers) == set(codes)
    differing = sum(int((solution.layers[name].codes != codes[name]).sum()) for name in codes)
    # A weight beside a tie may fall to the other side by the order of a sum.
    assert differing <= 1e-3 * sum(code.numel() for code in codes.values())
    for name, scale in scales.items():
        torch.testing.assert_close(solution.layers[name].grid.scale, scale, rtol=1e-4, atol=0)


def moved(solution: Solution, problem: Problem) -> float:
    """Return the share of the codes that differ from rounding to nearest on the first grid."""
    pairs = [
        (solution.layers[layer.name].codes, quantize(layer.module.weight.detach(), layer.grid))
        for layer in problem.layers
    ]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


@each_grid
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "learning_rate": 0.3, "schedule": "constant", "clip_norm": None},
        {"optimizer": "sgd", "learning_rate": 0.3, "gradient": "masked", "clip_norm": None},
        {"optimizer": "sgd", "learning_rate": 1.0, "clip_norm": 0.2},
        {"learning_rate": 0.02},
    ],
    ids=["plain", "masked", "clipped", "adamw"],
)
def test_straight_through_training_is_the_loop_by_hand(
    make_problem: MakeProblem, grid: dict[str, Any], options: dict[str, Any]
) -> None:
    # Half the range, so that some weights are clipped and the mask matters.
    quantizer = {"quantizer": "mse", "candidates": 2, "smallest": 0.01, "p": 0.5} if "gradient" in options else {}
    asked = ste(**options)
    solution = asked.solve(make_problem(bits=3, **grid, **quantizer))
    assert_same(solution, by_hand(make_problem(bits=3, **grid, **quantizer), asked))
    assert moved(solution, make_problem(bits=3, **grid, **quantizer)) > 0.01


def test_the_mask_matters(make_problem: MakeProblem) -> None:
    quantizer: dict[str, Any] = {"quantizer": "mse", "candidates": 2, "smallest": 0.01, "p": 0.5}
    with_mask, without = (
        ste(gradient=gradient, optimizer="sgd", learning_rate=0.3).solve(make_problem(bits=3, **quantizer))
        for gradient in ("masked", "identity")
    )
    assert any(not torch.equal(with_mask.layers[name].codes, without.layers[name].codes) for name in without.layers)


@each_grid
@pytest.mark.parametrize("gradient_scale", ["layer", "step"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "learning_rate": 0.3, "schedule": "constant", "clip_norm": None},
        {"learning_rate": 0.02},
    ],
    ids=["plain", "adamw"],
)
def test_lsq_training_is_the_loop_by_hand(
    make_problem: MakeProblem, grid: dict[str, Any], gradient_scale: str, options: dict[str, Any]
) -> None:
    asked = lsq(gradient_scale=gradient_scale, **options)
    problem = make_problem(bits=3, **grid)
    first = {layer.name: layer.grid.scale.clone() for layer in problem.layers}
    solution = asked.solve(problem)
    assert_same(solution, by_hand(make_problem(bits=3, **grid), asked))
    assert all((found.grid.scale != first[name]).any() for name, found in solution.layers.items())
    assert all(torch.equal(layer.grid.scale, first[layer.name]) for layer in problem.layers)


def layer_of(weight: Tensor, bits: int, granularity: Any, *, symmetric: bool = True) -> TargetLayer:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight
    rule = AbsMax(name="absmax", granularity=granularity, symmetric=symmetric)
    return TargetLayer("layer", module, choose_grid(weight, rule, bits))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", {"per_group": 4}], ids=str)
def test_the_paper_s_first_step_size_and_gradient_scale(bits: int, symmetric: bool, granularity: Any) -> None:
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    layer = layer_of(weight, bits, granularity, symmetric=symmetric)
    blocks = {
        "per_tensor": [[weight]],
        "per_channel": [[row] for row in weight],
    }.get(str(granularity), [[row[:4], row[4:8], row[8:]] for row in weight])
    top = 2 ** (bits - 1) - 1
    means = torch.tensor([[float(block.abs().mean()) for block in row] for row in blocks])
    by_layer = LearnedStepWeight(layer, lsq(init="lsq"))
    torch.testing.assert_close(by_layer.step_size.detach(), 2 * means / math.sqrt(top))
    assert by_layer.gain == pytest.approx(1 / math.sqrt(30 * top))
    by_step = LearnedStepWeight(layer, lsq(init="grid", gradient_scale="step"))
    assert torch.equal(by_step.step_size, layer.grid.scale)
    assert by_step.gain == pytest.approx(1 / math.sqrt(30 / means.numel() * top))


def test_the_first_step_size_of_an_all_zero_row_is_the_grid_s() -> None:
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    weight[1] = 0.0
    layer = layer_of(weight, 3, "per_channel")
    quantized = LearnedStepWeight(layer, lsq(init="lsq"))
    assert quantized.step_size[1] == layer.grid.scale[1]
    quantized.write()
    layer.module.weight.sum().backward()
    quantized.take_gradient()
    assert torch.isfinite(layer.module.weight).all() and torch.isfinite(quantized.step_size.grad).all()


def test_step_sizes_have_the_rate_they_are_given() -> None:
    layer = layer_of(torch.randn(3, 10, generator=torch.Generator().manual_seed(0)), 3, "per_channel")
    (by_default,) = LearnedStepWeight(layer, lsq(learning_rate=0.5)).step_sizes()
    assert by_default["lr"] == pytest.approx(0.5 * float(layer.grid.scale.mean()))
    (given,) = LearnedStepWeight(layer, lsq(step_size_learning_rate=0.125)).step_sizes()
    assert given["lr"] == 0.125


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_step_sizes_stay_positive(make_problem: MakeProblem, optimizer: str) -> None:
    problem = make_problem(bits=2)
    solution = lsq(optimizer=optimizer, step_size_learning_rate=50.0, clip_norm=None, steps=4).solve(problem)
    solution.check(problem)
    least = [(solution.layers[layer.name].grid.scale / layer.grid.scale).min().item() for layer in problem.layers]
    assert min(least) == pytest.approx(1e-3)


@both
@each_grid
def test_a_rate_of_next_to_nothing_leaves_rounding_to_nearest(
    make_problem: MakeProblem, kind: type[Method], grid: dict[str, Any]
) -> None:
    tiny = {"learning_rate": 1e-12} | ({"step_size_learning_rate": 1e-12} if kind is LearnedStepSize else {})
    solution = kind.model_validate({"name": "qat", "steps": 2, "batch_size": 2, **tiny}).solve(make_problem(**grid))
    for layer in make_problem(**grid).layers:
        found = solution.layers[layer.name]
        assert torch.equal(found.codes, quantize(layer.module.weight.detach(), layer.grid))
        torch.testing.assert_close(found.grid.scale, layer.grid.scale, rtol=1e-6, atol=0)
        assert found.details["moved_l1"] < 1e-6


@both
def test_only_target_layers_change(make_problem: MakeProblem, kind: type[Method]) -> None:
    problem = make_problem()
    blocks = [dataclasses.replace(problem.blocks[0], layers=problem.blocks[0].layers[:2])]
    problem = dataclasses.replace(problem, blocks=blocks)
    before = copy.deepcopy(problem.model.state_dict())
    solution = kind.model_validate({"name": "qat", "steps": 2, "learning_rate": 0.05}).solve(problem)
    after = problem.model.state_dict()
    assert set(before) == set(after)
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == {layer.name for layer in problem.layers} == set(solution.layers)
    for layer in problem.layers:
        assert type(layer.module) is nn.Linear
        assert torch.equal(layer.module.weight, solution.layers[layer.name].weight())
    assert not problem.model.training
    # Nor is time spent on the gradients of what stays as it is.
    assert all(parameter.grad is None for parameter in problem.model.parameters())


@both
def test_the_same_seed_gives_the_same_bytes(make_problem: MakeProblem, kind: type[Method]) -> None:
    method = kind.model_validate({"name": "qat", "steps": 4, "learning_rate": 0.02})
    first, second, other = (method.solve(make_problem(seed=seed)) for seed in (1, 1, 2))
    assert first.traces == second.traces != other.traces
    for name, found in first.layers.items():
        assert torch.equal(found.codes, second.layers[name].codes)
        assert torch.equal(found.grid.scale, second.layers[name].grid.scale)
    assert any(not torch.equal(found.codes, other.layers[name].codes) for name, found in first.layers.items())


@both
def test_what_was_used_is_counted(make_problem: MakeProblem, kind: type[Method]) -> None:
    problem = make_problem()
    rtn = copy.deepcopy(problem)
    with torch.no_grad():
        for layer in rtn.layers:
            layer.module.weight.copy_(layer.grid.scale * quantize(layer.module.weight, layer.grid))
    batch = next(problem.train_batches(5, problem.seed_of("train-batches")))
    with torch.no_grad():
        expected = problem.loss(rtn.model, batch).item()
    solution = kind.model_validate({"name": "qat", "steps": 4, "batch_size": 5}).solve(problem)
    assert (solution.train_steps, solution.train_tokens, solution.calibration_tokens) == (4, 4 * 5 * 12, 0)
    assert len(solution.traces["train_loss"]) == 4
    assert solution.traces["train_loss"][0] == pytest.approx(expected, rel=1e-5)


@both
@pytest.mark.parametrize("bits", [2, 4])
def test_training_lowers_the_loss_of_the_quantized_model(
    make_problem: MakeProblem, kind: type[Method], bits: int
) -> None:
    problem = make_problem(bits=bits)
    batch = next(problem.train_batches(8, 0))
    problem = dataclasses.replace(problem, train_batches=lambda *_: itertools.repeat(batch))
    losses = (
        kind.model_validate({"name": "qat", "steps": 40, "learning_rate": 0.01}).solve(problem).traces["train_loss"]
    )
    assert losses[-1] < 0.9 * losses[0]


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told(make_problem: MakeProblem, kind: type[Method], value: float) -> None:
    problem = make_problem()
    calls = itertools.count(1)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return problem.loss(model, batch) * (value if next(calls) == 3 else 1.0)

    with pytest.raises(DivergedError) as caught:
        kind.model_validate({"name": "qat", "steps": 5}).solve(dataclasses.replace(problem, loss=loss))
    assert str(caught.value) == f"the training loss became {value} at step 3 of 5"

"""AdamW in 8 bits: the code, read bit by bit; the memory; and how closely it follows the one in float32."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.methods.adamw_8bit import BLOCK, SMALLEST, AdamW8bit, dynamic_levels, from_codes, to_codes
from qbench.methods.fine_tune import FineTuning
from qbench.methods.problem import Problem
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.methods.training import Training

MakeProblem = Callable[..., Problem]


def read(code: int, bits: int) -> float:
    """Return what the bits of a code without a sign stand for."""
    text = format(code, f"0{bits}b")
    if "1" not in text:
        return 0.0
    zeros = text.index("1")
    fraction = text[zeros + 1 :]
    parts = 2 ** len(fraction)
    return 10.0**-zeros * (0.1 + 0.9 * (int(fraction or "0", 2) + 0.5) / parts)


def test_the_levels_are_those_of_the_tree_read_bit_by_bit() -> None:
    # Seven bits of magnitude; the eighth is the sign, or doubles the parts of each power of ten.
    magnitudes = [read(code, 7) for code in range(1, 128)]
    signed = sorted([*magnitudes, *(-value for value in magnitudes), 0.0, 1.0])
    assert dynamic_levels(signed=True).tolist() == pytest.approx(signed, rel=1e-6)
    # The power of ten that has all its bits for itself stands for two parts where there is no sign.
    assert dynamic_levels(signed=False).tolist() == pytest.approx(
        sorted([0.0, 1.0, *(value for code in range(2, 256) for value in [read(code, 8)])]), rel=1e-6
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, 5000])
def test_codes_are_the_nearest(signed: bool, count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(1))
    values = values if signed else values.square()
    codes, scale = to_codes(values, signed=signed)
    assert codes.dtype == torch.uint8 and codes.shape == (count,) and scale.shape == (-(-count // BLOCK),)
    found = from_codes(codes, scale, signed=signed)
    levels = dynamic_levels(signed=signed)
    for start in range(0, count, BLOCK):
        block = values[start : start + BLOCK]
        largest = block.abs().max()
        index = (block[:, None] / largest - levels).abs().argmin(dim=1)
        index = index if signed else index.clamp(min=1)  # none of them is 0
        assert torch.allclose(found[start : start + BLOCK], levels[index] * largest, rtol=1e-6, atol=0)


def test_each_level_keeps_its_code_and_a_block_of_zeros_is_one() -> None:
    for signed in (True, False):
        levels = dynamic_levels(signed=signed)
        codes, _ = to_codes(levels, signed=signed)
        assert torch.equal(codes, torch.arange(256).to(torch.uint8))
        codes, scale = to_codes(torch.zeros(300), signed=signed)
        assert torch.equal(from_codes(codes, scale, signed=signed), torch.zeros(300))


def test_a_second_moment_above_zero_is_never_kept_as_zero() -> None:
    values = torch.tensor([1.0, 1e-30, 1e-12, 0.0])
    found = from_codes(*to_codes(values, signed=False), signed=False)
    assert (found[:3] > 0).all() and found[3] == 0


def test_the_first_step_is_that_of_float32() -> None:
    weight = torch.randn(80, 80)
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    ours.grad = torch.randn(80, 80)
    theirs.grad = ours.grad.clone()
    AdamW8bit([ours], lr=0.01).step()
    torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0).step()
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-7)


def test_small_tensors_are_those_of_float32_at_every_step() -> None:
    weight = torch.randn(SMALLEST - 1)
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    pairs = AdamW8bit([ours], lr=0.01), torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(5):
        ours.grad = torch.randn(SMALLEST - 1)
        theirs.grad = ours.grad.clone()
        for one in pairs:
            one.step()
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def trained(problem: Problem, **options: Any) -> Training:
    spec = StraightThroughQAT.model_validate({"name": "ste_qat", "steps": 30, "learning_rate": 0.005, **options})
    training = Training(problem, spec, [_weight(layer, spec) for layer in problem.layers], problem.loss)
    training.run()
    return training


def _weight(layer: Any, spec: StraightThroughQAT) -> Any:
    from qbench.methods.qat import StraightThroughWeight

    return StraightThroughWeight(layer, spec)


def test_it_follows_float32_on_a_language_model(make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.methods.adamw_8bit.SMALLEST", 64)  # the model's matrices are small ones
    # Without a grid: where two ways round a weight differently they part, whatever parted them.
    options = {"name": "fine_tune", "steps": 30, "learning_rate": 0.005}
    full, coded = (
        FineTuning.model_validate(options | {"optimizer_state": state}).train(make_problem()).traces["train_loss"]
        for state in ("float32", "8bit")
    )
    assert coded != full
    gained = full[0] - sum(full[-5:]) / 5
    apart = max(abs(one - other) for one, other in zip(full, coded, strict=True))
    assert gained > 0.1 and apart < 0.1 * gained


def test_it_takes_a_quarter_of_the_memory_and_the_same_steps_each_time() -> None:
    def after(steps: int) -> tuple[Tensor, AdamW8bit]:
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.randn(512, 512, generator=generator))
        optimizer = AdamW8bit([weight], lr=0.01)
        for _ in range(steps):
            weight.grad = torch.randn(512, 512, generator=generator)
            optimizer.step()
        return weight, optimizer

    weight, optimizer = after(3)
    held = [value for value in optimizer.state[weight].values() if isinstance(value, Tensor)]
    size = sum(value.numel() * value.element_size() for value in held)
    assert size / (2 * 4 * weight.numel()) == pytest.approx(0.25 + 1 / BLOCK, rel=1e-3)
    assert torch.equal(after(3)[0], weight)


def test_a_state_dict_goes_there_and_back() -> None:
    parameters = [nn.Parameter(torch.randn(70, 70)), nn.Parameter(torch.randn(5))]
    optimizer = AdamW8bit([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}], lr=0.01)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    twins = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    twin = AdamW8bit([{"params": twins[:1]}, {"params": twins[1:], "lr": 0.25}], lr=0.02)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter, other in zip(parameters, twins, strict=True):
        for name, value in optimizer.state[parameter].items():
            again = twin.state[other][name]
            assert type(again) is type(value)
            same = torch.equal(again, value) and again.dtype == value.dtype if isinstance(value, Tensor) else True
            assert same and (isinstance(value, Tensor) or again == value)
        parameter.grad = torch.randn_like(parameter)
        other.grad = parameter.grad.clone()
    optimizer.step()
    twin.step()
    assert all(torch.equal(one, other) for one, other in zip(parameters, twins, strict=True))


def test_frozen_weights_do_not_run_away(make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.methods.adamw_8bit.SMALLEST", 64)
    options = {"oscillation": "freeze", "oscillation_threshold": 0.002, "gradient": "masked"}
    losses = trained(dataclasses.replace(make_problem()), optimizer_state="8bit", **options).losses
    assert max(losses) < 2 * losses[0]


def test_a_closure_is_asked() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdamW8bit([weight], lr=0.1)

    def closure() -> float:
        weight.grad = torch.ones(3)
        return 7.0

    assert optimizer.step(closure) == 7.0 and weight.max() < 1

"""Oscillating weights: the running means against a loop over one weight at a time, and what freezing holds."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.methods.lsq import LearnedStepSize
from qbench.methods.oscillation import Oscillation
from qbench.methods.problem import Problem
from qbench.methods.qat import LearnedStepWeight, StraightThroughWeight
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.methods.training import Training
from qbench.quant.block_grid import dequantize, quantize

MakeProblem = Callable[..., Problem]

# Rows: back and forth at every step; a steady climb; up, a rest, and down; a jump of two and back; nothing.
CODES = torch.tensor(
    [
        [0, 1, 0, 1, 0, 1, 0, 1],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 1, 1, 0, 0, 1, 1],
        [0, 2, 2, 0, 0, 0, 0, 2],
        [3, 3, 3, 3, 3, 3, 3, 3],
    ]
).float()
MOMENTUM = 0.25


def by_hand(codes: list[float], threshold: float, *, freeze: bool) -> tuple[list[float], float, bool]:
    """Return the codes as they are held, the frequency at the end, and whether the weight is frozen."""
    previous, direction, frequency, average, frozen = codes[0], 0.0, 0.0, codes[0], None
    held = []
    for arriving in codes[1:]:
        code = arriving if frozen is None else frozen
        change = code - previous
        turned = change != 0 and direction != 0 and (change > 0) != (direction > 0)
        frequency = MOMENTUM * turned + (1 - MOMENTUM) * frequency
        average = MOMENTUM * code + (1 - MOMENTUM) * average
        direction, previous = change or direction, code
        if freeze and frozen is None and frequency > threshold:
            frozen = previous = float(round(average))
        held.append(previous)
    return held, frequency, frozen is not None


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.6])
def test_frequencies_and_frozen_codes_are_those_of_a_loop(threshold: float, freeze: bool) -> None:
    followed = Oscillation(CODES[:, :1], MOMENTUM, threshold, freeze=freeze)
    held = torch.cat([followed.observe(CODES[:, i : i + 1]) for i in range(1, CODES.shape[1])], dim=1)
    expected = [by_hand(row, threshold, freeze=freeze) for row in CODES.tolist()]
    assert held.tolist() == [codes for codes, _, _ in expected]
    assert followed.frequency.flatten().tolist() == pytest.approx([frequency for _, frequency, _ in expected])
    assert followed.frozen.flatten().tolist() == [frozen for _, _, frozen in expected]
    shares = {"oscillating": sum(frequency > threshold for _, frequency, _ in expected) / len(expected)}
    if freeze:
        shares["frozen"] = sum(frozen for _, _, frozen in expected) / len(expected)
    assert followed.details() == pytest.approx(shares)
    if threshold < 0.6:
        assert any(frozen for _, _, frozen in expected) == freeze


def restless(make_problem: MakeProblem, **grid: Any) -> Problem:
    """Return a problem that is trained on one batch, so that a high rate makes codes swing."""
    problem = make_problem(bits=3, **grid)
    batch = next(problem.train_batches(4, 0))
    return dataclasses.replace(problem, train_batches=lambda *_: itertools.repeat(batch))


OPTIONS = {"steps": 25, "learning_rate": 0.05, "schedule": "constant", "oscillation_momentum": 0.1}


@pytest.mark.parametrize("kind", [StraightThroughQAT, LearnedStepSize])
def test_following_changes_nothing_and_is_told(make_problem: MakeProblem, kind: Any) -> None:
    plain, tracked = (
        kind.model_validate({"name": "qat", **OPTIONS, "oscillation": mode}).solve(restless(make_problem))
        for mode in ("none", "track")
    )
    assert plain.traces == tracked.traces
    for name, found in tracked.layers.items():
        assert torch.equal(found.codes, plain.layers[name].codes)
        assert set(found.details) == {"moved_l1", "oscillating"}
    assert max(found.details["oscillating"] for found in tracked.layers.values()) > 0


@pytest.mark.parametrize("scale", ["frozen", "dynamic", "learned"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_frozen_codes_hold_to_the_end(make_problem: MakeProblem, scale: str, symmetric: bool) -> None:
    problem = restless(make_problem, symmetric=symmetric)
    given = {**OPTIONS, "oscillation": "freeze", "oscillation_threshold": 0.05}
    weights: list[Any]
    if scale == "learned":
        options: Any = LearnedStepSize.model_validate({"name": "lsq", **given})
        weights = [LearnedStepWeight(layer, options) for layer in problem.layers]
    else:
        options = StraightThroughQAT.model_validate({"name": "ste_qat", "scale": scale, **given})
        weights = [StraightThroughWeight(layer, options) for layer in problem.layers]
    training = Training(problem, options, weights, problem.loss)
    before: list[tuple[Tensor, Tensor]] = []
    for step, batch in zip(range(options.steps), problem.train_batches(4, 0), strict=False):
        training.step(batch)
        now = [(weight.frozen().clone(), codes_of(weight)) for weight in weights]
        for (mask, codes), (later_mask, later_codes) in zip(before, now if step else [], strict=True):
            assert later_mask[mask].all()
            assert torch.equal(later_codes[mask], codes[mask])
        before = now
    assert sum(int(mask.sum()) for mask, _ in before) > 20
    for weight, (mask, codes) in zip(weights, before, strict=True):
        found = weight.solution()
        assert torch.equal(found.codes, codes)
        assert found.details["frozen"] == pytest.approx(float(mask.float().mean()))
        assert torch.equal(weight.layer.matrix(), dequantize(codes, found.grid))


def codes_of(weight: Any) -> Tensor:
    """Return the codes of what the model computes with."""
    return quantize(weight.layer.matrix(), weight.grid())


def test_a_frozen_weight_has_the_slope_of_its_level(make_problem: MakeProblem) -> None:
    problem = make_problem(bits=3)
    options = LearnedStepSize.model_validate({"name": "lsq", "oscillation": "freeze", "oscillation_momentum": 0.1})
    weight = LearnedStepWeight(problem.layers[0], options)
    weight.write()
    mask = weight.frozen()
    mask[:, ::3] = True
    weight._oscillation._frozen_codes = codes_of(weight)
    weight.write()
    codes, ratio = codes_of(weight), weight.latent.detach() / weight.step_size.detach()
    upstream = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    inside = (ratio > -4) & (ratio < 3) & ~mask
    slope = torch.where(inside, codes - ratio, codes)
    weight.layer.module.weight.grad = upstream.clone()
    weight.take_gradient()
    assert not weight.latent.grad[mask].any()
    expected = (slope * upstream).sum(dim=1, keepdim=True) * weight.gain
    torch.testing.assert_close(weight.step_size.grad, expected, rtol=1e-4, atol=1e-6)

"""Block-AP on a small Llama and on a convolutional network of real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.errors import DivergedError
from qbench.methods.block_ap import BlockAP
from qbench.methods.problem import Problem

MakeProblem = Callable[..., Problem]


def asked(**changed: Any) -> BlockAP:
    # So little data needs rates above the defaults.
    settings = {"epochs": 10, "learning_rate": 0.01, "scale_learning_rate": 0.01, **changed}
    return BlockAP.model_validate({"name": "block_ap", **settings})


@pytest.mark.parametrize("train", ["weights", "weights_and_scales"])
@pytest.mark.parametrize("quantizer", [{}, {"symmetric": False}, {"granularity": {"per_group": 6}}], ids=str)
def test_the_block_s_error_is_below_that_of_rounding(
    make_problem: MakeProblem, train: str, quantizer: dict[str, Any]
) -> None:
    solution = asked(train=train).solve(make_problem(2, **quantizer))
    solution.check(make_problem(2, **quantizer))
    for layer in make_problem(2, **quantizer).layers:
        found = solution.layers[layer.name]
        assert found.details["block_error"] < 0.9 * found.details["rtn_block_error"]
        assert 0 < found.details["moved_l1"] < 1
        assert (found.grid.scale > 0).all()
        assert torch.equal(found.grid.scale, layer.grid.scale) == (train == "weights")
        assert torch.equal(found.grid.zero_point, layer.grid.zero_point)
    assert {len(curve) for curve in solution.traces.values()} == {60}
    assert solution.train_steps == 120
    for curve in solution.traces.values():
        assert sum(curve[-6:]) < sum(curve[:6])


def test_learned_steps_are_better_than_fixed_ones(make_problem: MakeProblem) -> None:
    fixed, learned = (
        asked(train=train).solve(make_problem(2)).layers["model.layers.0.mlp.up_proj"].details["block_error"]
        for train in ("weights", "weights_and_scales")
    )
    assert learned < fixed


def test_the_first_loss_is_that_of_rounding(make_problem: MakeProblem) -> None:
    # One batch of all data: its error is the block's own.
    problem = make_problem(3)
    calibration = [torch.cat(list(problem.calibration))]
    whole = Problem(**{**vars(problem), "calibration": calibration})
    solution = asked(epochs=1, batch_size=100).solve(whole)
    assert solution.traces["block_loss/0"] == pytest.approx([1.0], rel=1e-4)


def test_twice_the_same(make_problem: MakeProblem) -> None:
    first, second = (asked(epochs=1).solve(make_problem()) for _ in range(2))
    for name, found in first.layers.items():
        assert torch.equal(found.codes, second.layers[name].codes)
        assert torch.equal(found.grid.scale, second.layers[name].grid.scale)
    assert first.traces == second.traces


def test_bfloat16_is_trained_in_float32(make_problem: MakeProblem) -> None:
    problem = make_problem(2)
    problem.model.to(torch.bfloat16)
    solution = asked().solve(problem)
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert found.codes.dtype == torch.float32 and layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight, found.weight().to(torch.bfloat16))
        assert found.details["block_error"] < found.details["rtn_block_error"]


def test_convolutions_behind_batch_norms(make_images_problem: MakeProblem) -> None:
    solution = asked(batch_size=16, epochs=30, learning_rate=0.003, scale_learning_rate=0.003).solve(
        make_images_problem(2)
    )
    solution.check(make_images_problem(2))
    for found in solution.layers.values():
        assert found.details["block_error"] < found.details["rtn_block_error"]


def test_a_loss_that_is_not_a_number_is_said(make_problem: MakeProblem) -> None:
    problem = make_problem()
    problem.blocks[0].module.input_layernorm.weight.data.fill_(torch.nan)
    with pytest.raises(DivergedError, match="the loss of a block became nan at step 1 of 60"):
        asked().solve(problem)

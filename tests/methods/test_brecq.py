"""BRECQ on a small Llama and on a convolutional network of real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from qbench.errors import DivergedError
from qbench.methods.adaround import AdaRound
from qbench.methods.brecq import BRECQ
from qbench.methods.problem import Problem, Solution
from qbench.methods.reconstruction import block_tasks
from qbench.methods.rtn import RoundToNearest
from qbench.methods.soft_rounding import Neighbours

MakeProblem = Callable[..., Problem]


def asked(**changed: Any) -> BRECQ:
    return BRECQ.model_validate({"name": "brecq", **changed})


@torch.no_grad()
def first_block_error(problem: Problem, solution: Solution) -> float:
    """Return the error of the first block's output, whose input is the same for all methods."""
    task = next(block_tasks(problem, 4))
    return task.error([solution.layers[layer.name].weight() for layer in task.block.layers])


def test_the_block_s_error_is_below_that_of_rounding_and_of_layers_alone(make_problem: MakeProblem) -> None:
    solution = asked().solve(make_problem(2))
    alone = AdaRound(name="adaround").solve(make_problem(2))
    nearest = RoundToNearest(name="rtn").solve(make_problem(2))
    learned, by_layer, rounded = (first_block_error(make_problem(2), one) for one in (solution, alone, nearest))
    assert learned < by_layer < rounded
    solution.check(make_problem(2))
    for layer in make_problem(2).layers:
        found = solution.layers[layer.name]
        between = Neighbours.of(layer.matrix(), layer.grid)
        assert ((found.codes == between.down) | (found.codes == between.up)).all()
        assert found.grid is not None and torch.equal(found.grid.scale, layer.grid.scale)
        assert found.details["block_error"] < found.details["rtn_block_error"]
        assert found.details["unsettled"] < 0.2
    assert set(solution.traces) == {"block_loss/0", "block_loss/1"}
    assert [len(curve) for curve in solution.traces.values()] == [200, 200]
    assert solution.train_steps == 400


@pytest.mark.parametrize("changed", [{"loss": "fisher"}, {"init": "adaround"}, {"schedule": "cosine"}], ids=str)
def test_every_option_beats_rounding(make_problem: MakeProblem, changed: dict[str, Any]) -> None:
    solution = asked(**changed).solve(make_problem(3))
    for found in solution.layers.values():
        assert found.details["block_error"] < found.details["rtn_block_error"]


def test_twice_the_same(make_problem: MakeProblem) -> None:
    first, second = (asked(iterations=10).solve(make_problem()) for _ in range(2))
    assert all(torch.equal(first.layers[name].codes, second.layers[name].codes) for name in first.layers)
    assert first.traces == second.traces


def test_regularization_settles_the_roundings(make_problem: MakeProblem) -> None:
    loose, tight = (
        max(one.details["unsettled"] for one in asked(regularization=weight).solve(make_problem()).layers.values())
        for weight in (0.0, 300.0)
    )
    assert loose > 0.4
    assert tight < 0.1


def test_bfloat16_is_solved_in_float32(make_problem: MakeProblem) -> None:
    problem = make_problem(2)
    problem.model.to(torch.bfloat16)
    solution = asked(iterations=60).solve(problem)
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert found.codes.dtype == torch.float32 and layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight, found.weight().to(torch.bfloat16))
        assert found.details["block_error"] < found.details["rtn_block_error"]


def test_convolutions_behind_batch_norms(make_images_problem: Callable[..., Problem]) -> None:
    problem = make_images_problem(2)
    statistics = {name: value.clone() for name, value in problem.model.named_buffers()}
    solution = asked(batch_size=16).solve(problem)
    solution.check(make_images_problem(2))
    for found in solution.layers.values():
        assert found.details["block_error"] < found.details["rtn_block_error"]
    assert all(torch.equal(value, statistics[name]) for name, value in problem.model.named_buffers())


def test_fisher_weights_are_squared_gradients_of_the_loss(make_problem: MakeProblem) -> None:
    problem = make_problem(2)
    weights = [batch.weight for batch in next(block_tasks(problem, 2, fisher=True)).batches]
    assert all(weight is not None for weight in weights)
    mean = sum(float(weight.sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert mean == pytest.approx(1, rel=1e-4)
    # By hand: the loss's gradient for an offset added to the first block's output.
    batch = problem.calibration[0][:2]
    offset = torch.zeros(2, 12, 16, requires_grad=True)
    hook = problem.blocks[0].module.register_forward_hook(
        lambda _, args, output: (output[0] + offset, *output[1:]) if isinstance(output, tuple) else output + offset
    )
    logits = problem.model(input_ids=batch, use_cache=False).logits[:, :-1]
    functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
    hook.remove()
    expected = offset.grad.square()
    torch.testing.assert_close(weights[0] / weights[0].mean(), expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_not_a_number_is_said(make_problem: MakeProblem) -> None:
    problem = make_problem()
    problem.blocks[0].module.input_layernorm.weight.data.fill_(torch.nan)
    with pytest.raises(DivergedError, match="the loss of a block became nan at step 1 of 200"):
        asked().solve(problem)

"""The block loop: which inputs and targets a block gets, and running it with other weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qbench.methods.block_calls import Rest
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.reconstruction import BlockTask, block_tasks
from qbench.methods.working_block import WorkingBlock
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid

MakeProblem = Callable[..., Problem]


def hidden_states(problem: Problem, index: int) -> Tensor:
    """Return the output of a block in a run of the whole model."""
    kept: list[Tensor] = []

    def note(_: nn.Module, args: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    hook = problem.blocks[index].module.register_forward_hook(note)
    with torch.no_grad():
        for batch in problem.calibration:
            problem.forward(problem.model, batch)
    hook.remove()
    return torch.cat(kept)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_inputs_are_those_of_the_quantized_model_and_targets_those_of_the_full_one(
    make_problem: MakeProblem, batch_size: int
) -> None:
    problem, untouched = make_problem(2), make_problem(2)
    for index, task in enumerate(block_tasks(problem, batch_size)):
        assert max(len(batch.seen) for batch in task.batches) == min(batch_size, 4)
        torch.testing.assert_close(torch.cat([one.target for one in task.batches]), hidden_states(untouched, index))
        if index:
            torch.testing.assert_close(
                torch.cat([one.seen for one in task.batches]), hidden_states(problem, index - 1), rtol=1e-4, atol=1e-5
            )
        for layer in task.block.layers:
            layer.write(torch.zeros_like(layer.matrix()))


def test_errors_are_means_over_all_elements(make_problem: MakeProblem) -> None:
    task = next(block_tasks(make_problem(2), 3))
    zeros = [torch.zeros_like(layer.matrix()) for layer in task.block.layers]
    with torch.no_grad():
        outputs = [task.working(zeros, one.seen, one.rest) for one in task.batches]
    target = torch.cat([one.target for one in task.batches])
    assert task.error(zeros) == pytest.approx(float((torch.cat(outputs) - target).square().mean()), rel=1e-5)
    assert task.power() == pytest.approx(float(target.square().mean()), rel=1e-5)
    assert task.error([layer.matrix() for layer in task.block.layers]) < 1e-10
    assert task.rtn_error() > 0


def test_every_batch_comes_before_any_comes_again(make_problem: MakeProblem) -> None:
    task: BlockTask = next(block_tasks(make_problem(), 1))
    drawn = [id(one) for one in task.draws(23, torch.Generator().manual_seed(0))]
    assert len(drawn) == 23 and len(task.batches) == 11
    assert len(set(drawn[:11])) == len(set(drawn[11:22])) == 11
    assert drawn[:11] != drawn[11:22]


@pytest.mark.parametrize("module", [nn.Linear(6, 4), Conv1D(4, 6), nn.Conv2d(6, 4, 3, groups=2)], ids=str)
def test_a_block_that_is_a_layer_runs_with_other_weights(module: nn.Module) -> None:
    """Also gradients come back in the layout of the matrix."""
    with torch.no_grad():
        layer = TargetLayer("one", module, AbsMax(name="absmax"))  # type: ignore[arg-type]
        layer = TargetLayer("one", module, choose_grid(layer.matrix(), AbsMax(name="absmax"), 3))
    working = WorkingBlock(Block(module, (layer,)))
    x = torch.randn(2, 6, 5, 5) if isinstance(module, nn.Conv2d) else torch.randn(2, 5, 6)
    matrix = (2 * layer.matrix()).requires_grad_()
    bias = module(torch.zeros_like(x))
    output = working([matrix], x, Rest((), {}))
    torch.testing.assert_close(output - bias, 2 * (module(x) - bias))
    output.square().sum().backward()
    assert matrix.grad is not None and matrix.grad.any()
    assert not any(parameter.grad is not None for parameter in module.parameters())


def test_float32_blocks_are_not_copied_and_others_are(make_problem: MakeProblem) -> None:
    block = make_problem().blocks[0]
    assert WorkingBlock(block)._called.module is block.module
    block.module.to(torch.bfloat16)
    copied = WorkingBlock(block)._called.module
    assert copied is not block.module
    assert {value.dtype for value in copied.parameters()} == {torch.float32}

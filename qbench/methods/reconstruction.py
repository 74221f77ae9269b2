"""Block reconstruction: train a block's weights so that its output stays that of the full-precision block.

What BRECQ (Li et al., 2021, arXiv:2102.05426) and Block-AP (Chen et al., 2024, arXiv:2407.11062) share: a block is fed
by its quantized predecessors, its target is the output of the full-precision block on full-precision inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from qbench.methods.block_calls import Rest, Stream, hidden_of, survey, whole_output
from qbench.methods.problem import Block, Problem
from qbench.methods.working_block import WorkingBlock
from qbench.quant.block_grid import fake_quantize


@dataclass(frozen=True)
class Batch:
    """What a block is trained on at a time.

    Attributes
    ----------
    seen : Tensor
        The block's input behind its quantized predecessors.
    target : Tensor
        The output of the full-precision block on full-precision input.
    rest : Rest
        What else the block is called with.
    weight : Tensor or None
        Of each element of the squared error, with a mean of 1 over all batches; None for 1.
    """

    seen: Tensor
    target: Tensor
    rest: Rest
    weight: Tensor | None = None

    def error(self, output: Tensor) -> Tensor:
        """Return the mean squared error of an output, weighted where there are weights."""
        squared = (output - self.target).square()
        return squared.mean() if self.weight is None else (squared * self.weight).mean()


@dataclass(frozen=True)
class BlockTask:
    """A block to be reconstructed, and its data.

    Attributes
    ----------
    block : Block
        The block, still in full precision.
    working : WorkingBlock
        The same in float32, to be run with other weights.
    batches : list of Batch
        All calibration data.
    """

    block: Block
    working: WorkingBlock
    batches: list[Batch]

    @torch.no_grad()
    def error(self, matrices: list[Tensor]) -> float:
        """Return the block's mean squared error over all data, with the given matrices for its layers' weights."""
        errors = [batch.error(self.working(matrices, batch.seen, batch.rest)) for batch in self.batches]
        sizes = [batch.target.numel() for batch in self.batches]
        return sum(float(error) * size for error, size in zip(errors, sizes, strict=True)) / sum(sizes)

    def rtn_error(self) -> float:
        """Return the block's error with every layer rounded to nearest."""
        return self.error([fake_quantize(layer.matrix(), layer.grid) for layer in self.block.layers])

    def power(self) -> float:
        """Return the mean square of the full-precision output, or 1 where that is 0."""
        total = sum(float(batch.target.double().square().sum()) for batch in self.batches)
        return total / sum(batch.target.numel() for batch in self.batches) or 1.0

    def draws(self, count: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches: all of them in a random order, then all in another, `count` in all."""
        order: list[int] = []
        for _ in range(count):
            order = order or torch.randperm(len(self.batches), generator=generator).tolist()
            yield self.batches[order.pop()]


@torch.no_grad()
def block_tasks(problem: Problem, batch_size: int, *, fisher: bool = False) -> Iterator[BlockTask]:
    """Yield the blocks of a model in forward order; the caller writes the quantized weights before it goes on.

    Parameters
    ----------
    problem : Problem
        Model, blocks and calibration data.
    batch_size : int
        Samples (windows, images) a batch. Batches are cut once, since what a block is called with beside its hidden
        states belongs to a batch as a whole.
    fisher : bool
        Whether errors are weighted by the squared gradients of the training loss with respect to the block's output
        (BRECQ, equation 10), from one backward pass a batch through the full-precision model.

    Notes
    -----
    In memory are the inputs and targets of one block for all data; with `fisher` also the weights of all blocks. Where
    the model does more between two blocks than to hand hidden states on, also the outputs of all blocks before.
    """
    cut = [part for batch in problem.calibration for part in batch.split(batch_size)]
    weights = _squared_gradients(problem, cut) if fisher else None
    shown = survey(problem)
    seen = Stream(problem, cut, shown)
    full = seen.fork()
    for index, block in enumerate(problem.blocks):
        calls = seen.calls
        outputs = [whole_output(block.module, call) for call in full.calls]
        batches = []
        for place, (call, output) in enumerate(zip(calls, outputs, strict=True)):
            weight = None if weights is None else weights[index][place]
            batches.append(Batch(call.hidden.float(), hidden_of(output).float(), _in_float32(call.rest), weight))
        full.advance(outputs)
        del outputs
        yield BlockTask(block, WorkingBlock(block), batches)
        del batches
        if block is not problem.blocks[-1]:
            seen.advance(whole_output(block.module, call) for call in calls)


def _in_float32(rest: Rest) -> Rest:
    def cast(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    return Rest(tree_map(cast, rest.args), tree_map(cast, rest.kwargs), rest.keyword)


@torch.enable_grad()
def _squared_gradients(problem: Problem, batches: list[Tensor]) -> list[list[Tensor]]:
    """Return for each block and batch the squared gradient for the block's output, of mean 1 over a block's batches."""
    problem.model.requires_grad_(requires_grad=False)
    outputs: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        first = hidden_of(output)
        # The first block's output depends on nothing that is trained: the graph begins there.
        kept = first if first.requires_grad else first.detach().requires_grad_()
        kept.retain_grad()
        outputs.append(kept)
        given = kept.clone()  # the model may go on to work on it in place
        return (given, *output[1:]) if isinstance(output, tuple) else given

    found: list[list[Tensor]] = [[] for _ in problem.blocks]
    with ExitStack() as stack:
        for block in problem.blocks:
            stack.callback(block.module.register_forward_hook(note).remove)
        for batch in batches:
            outputs.clear()
            problem.loss(problem.model, batch).backward()
            for of_block, output in zip(found, outputs, strict=True):
                gradient = output.grad
                assert gradient is not None
                # The loss is a mean over the batch: without this, small batches would weigh more.
                of_block.append((gradient.float() * len(batch)).square())
    for of_block in found:
        mean = sum(float(part.sum()) for part in of_block) / sum(part.numel() for part in of_block)
        for part in of_block:
            part.div_(mean or 1.0)
    return found

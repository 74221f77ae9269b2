"""What the blocks of a model are called with, so that each can be run on its own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from qbench.errors import CellError
from qbench.methods.problem import Problem


@dataclass(frozen=True)
class Rest:
    """What a block is called with beside its hidden states: masks, position embeddings.

    It is a block's own: layers with a sliding window get another mask than their neighbours.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """What a block is called with: hidden states, and everything else."""

    hidden: Tensor
    rest: Rest


def calls_of(problem: Problem, batch: Tensor, *, keep_all: bool = False) -> list[Call]:
    """Run the model on a batch and return what each block was called with.

    Parameters
    ----------
    problem : Problem
        Model and blocks.
    batch : Tensor
        For `Problem.forward`.
    keep_all : bool
        Whether the hidden states of all blocks are wanted, and not of the first alone; those of the others are empty.

    Raises
    ------
    CellError
        The model does not call its blocks once each, in order.
    """
    calls: list[Call] = []
    called: list[nn.Module] = []

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        called.append(block)
        calls.append(_call(args, kwargs, keep=keep_all or not calls))

    with ExitStack() as stack:
        for block in problem.blocks:
            stack.callback(block.module.register_forward_pre_hook(note, with_kwargs=True).remove)
        problem.forward(problem.model, batch)
    if called != [block.module for block in problem.blocks]:
        raise CellError("the model does not call each of its blocks once, one after the other")
    return calls


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _call(args: tuple[Any, ...], kwargs: dict[str, Any], *, keep: bool) -> Call:
    """Return what a block is called with; its hidden states are kept or cut to nothing."""
    hidden = _hidden(args, kwargs)
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    return Call(hidden if keep else hidden[:0], Rest(args[1:], rest))


def all_calls(problem: Problem) -> list[list[Call]]:
    """Return the calls of all calibration batches, without running the blocks where they need not be run.

    What a block gets beside hidden states seldom depends on what another block makes of them, and running them all is a
    third of what GPTQ does on a small model. Whether it depends is tried on one example: with blocks that hand on what
    they are given all calls must be the same as with the real ones.

    Returns
    -------
    list of list of Call
        By batch and block; hidden states of the first block only.
    """
    example = problem.calibration[0][:1]
    real = calls_of(problem, example)
    shortcut = _calls_without_blocks(problem, example)
    if shortcut is None or not all(_same(one.rest, other.rest) for one, other in zip(real, shortcut, strict=True)):
        return [calls_of(problem, batch) for batch in problem.calibration]
    return [_calls_without_blocks(problem, batch) or calls_of(problem, batch) for batch in problem.calibration]


class _LastBlockError(Exception):
    """Ends the run of a model at its last block."""


def _calls_without_blocks(problem: Problem, batch: Tensor) -> list[Call] | None:
    """Return what `calls_of` returns, of blocks that hand on what they are given; None where the model objects."""
    calls: list[Call] = []
    blocks = [block.module for block in problem.blocks]

    def stand_in(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(_call(args, kwargs, keep=not calls))
        if len(calls) == len(blocks):
            raise _LastBlockError
        return _hidden(args, kwargs)

    with ExitStack() as stack:
        for block in blocks:
            own = block.__dict__.get("forward")
            block.forward = stand_in  # of this instance alone: taking it off again uncovers the class's
            stack.callback(block.__dict__.pop if own is None else block.__dict__.__setitem__, "forward", own)
        try:
            problem.forward(problem.model, batch)
        except _LastBlockError:
            return calls
        except Exception:  # a model that wants more of a block than a tensor is run as it is
            return None
    return None


def _same(one: Rest, other: Rest) -> bool:
    leaves, shape = tree_flatten((one.args, one.kwargs))
    others, other_shape = tree_flatten((other.args, other.kwargs))
    if shape != other_shape:
        return False
    for leaf, like in zip(leaves, others, strict=True):
        both = isinstance(leaf, Tensor) and isinstance(like, Tensor)
        if not (torch.equal(leaf, like) if both else leaf is like or leaf == like):
            return False
    return True


def run(module: nn.Module, hidden: Tensor, rest: Rest) -> Tensor:
    """Return the hidden states that a block makes of others.

    Parameters
    ----------
    module : nn.Module
        The block.
    hidden : Tensor
        What it is given first.
    rest : Rest
        Everything else it is called with.
    """
    output = module(hidden, *rest.args, **rest.kwargs)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result

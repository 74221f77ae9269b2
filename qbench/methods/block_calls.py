"""What the blocks of a model are called with, so that each can be run on its own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

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
        hidden = args[0] if args else kwargs["hidden_states"]
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        calls.append(Call(hidden if keep_all or not calls else hidden[:0], Rest(args[1:], rest)))

    with ExitStack() as stack:
        for block in problem.blocks:
            stack.callback(block.module.register_forward_pre_hook(note, with_kwargs=True).remove)
        problem.forward(problem.model, batch)
    if called != [block.module for block in problem.blocks]:
        raise CellError("the model does not call each of its blocks once, one after the other")
    return calls


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

"""What the blocks of a model are called with, so that each can be run on its own.

Where a block's output is what the next one is given, the blocks are run one after the other and nothing else is. Where
the model does something in between (pooling, a skip over blocks), it is run with the outputs of earlier blocks in
their places, so that all of it but the blocks is done again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from qbench.errors import CellError
from qbench.methods.problem import Problem, TargetLayer
from qbench.methods.stand_in import runs_as

_NOT_IN_ORDER = "the model does not call each of its blocks once, one after the other"


@dataclass(frozen=True)
class Rest:
    """What a block is called with beside its hidden states: masks, position embeddings.

    It is a block's own: layers with a sliding window get another mask than their neighbours.

    Attributes
    ----------
    args, kwargs : tuple, dict
        The other arguments.
    keyword : str or None
        The name under which the block is given its hidden states; None where they are the first argument.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keyword: str | None = None


@dataclass(frozen=True)
class Call:
    """What a block is called with: hidden states or images, and everything else."""

    hidden: Tensor
    rest: Rest


def whole_output(module: nn.Module, call: Call) -> Any:
    """Return everything that a block returns; see `hidden_of`."""
    rest = call.rest
    if rest.keyword is None:
        return module(call.hidden, *rest.args, **rest.kwargs)
    return module(*rest.args, **rest.kwargs, **{rest.keyword: call.hidden})


def hidden_of(output: Any) -> Tensor:
    """Return the hidden states in what a block returns: the first of several values."""
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


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
    return hidden_of(whole_output(module, Call(hidden, rest)))


@dataclass(frozen=True)
class Survey:
    """What one example shows of how a model calls its blocks.

    Attributes
    ----------
    seen : list of list of (TargetLayer, int)
        By block, the calls of its target layers in order. Those with one number are given the same tensor.
    finite : list of bool
        By block, whether what it gives is.
    is_chain : bool
        Whether each block is given the output of the one before it, and nothing else that depends on blocks.
    hands_on : bool
        Whether what a chain's blocks get beside hidden states can be found without running them.
    changed : frozenset of int
        Blocks whose output the model works on in place.
    """

    seen: list[list[tuple[TargetLayer, int]]]
    finite: list[bool]
    is_chain: bool
    hands_on: bool
    changed: frozenset[int]


@torch.no_grad()
def survey(problem: Problem) -> Survey:
    """Run a model on the first calibration sample, and each of its blocks on its own.

    Raises
    ------
    CellError
        The model does not call its blocks once each, in order. A block gives other hidden states on its own than in the
        model, or changes its input in place. A target layer is never called.
    """
    example = problem.calibration[0][:1]
    calls, outputs = _observed(problem, example, keep=True)
    seen = [_run_alone(problem, index, call, outputs[index]) for index, call in enumerate(calls)]
    hidden = [hidden_of(output) for output in outputs]
    direct = all(_equal(made, call.hidden) for made, call in zip(hidden[:-1], calls[1:], strict=True))
    copies = [_copied(output) for output in outputs[:-1]]
    versions = [_versions(output) for output in copies]
    calls_up_to(problem, example, [_giving(output) for output in copies])
    changed = frozenset(index for index, output in enumerate(copies) if _versions(output) != versions[index])
    # With outputs of other values all calls must be the same, beside the hidden states.
    others = [_giving(_copied(output, lambda value: 0.5 * value + 1)) for output in outputs[:-1]]
    with_others = _calls_or_none(problem, example, others)
    is_chain = direct and same_rests(calls, with_others)
    hands_on = is_chain and same_rests(calls, _calls_or_none(problem, example, _hand_on(problem)))
    finite = [bool(torch.isfinite(made).all()) for made in hidden]
    return Survey(seen, finite, is_chain, hands_on, changed)


def _run_alone(problem: Problem, index: int, call: Call, in_model: Any) -> list[tuple[TargetLayer, int]]:
    """Run a block on its own; return the calls of its layers."""
    block, given = problem.blocks[index], call.hidden.clone()
    seen: list[tuple[TargetLayer, Tensor]] = []
    with ExitStack() as stack:
        for layer in block.layers:
            hook = layer.module.register_forward_pre_hook(lambda _, args, layer=layer: seen.append((layer, args[0])))
            stack.callback(hook.remove)
        output = run(block.module, given, call.rest)
    if not torch.allclose(output, hidden_of(in_model), rtol=1e-3, atol=1e-5, equal_nan=True):
        raise CellError(f"block {index} gives other hidden states on its own than in the model")
    if not torch.allclose(given, call.hidden, rtol=0, atol=0, equal_nan=True):
        raise CellError(f"block {index} changes its input in place: it cannot be run again on the same input")
    called = {layer.name for layer, _ in seen}
    idle = [layer.name for layer in block.layers if layer.name not in called]
    if idle:
        raise CellError(f"layer {idle[0]!r} is never called, though its block runs: its inputs cannot be seen")
    return [(layer, id(x)) for layer, x in seen]


class Stream:
    """What the blocks of a model are called with, one after the other, on batches.

    Parameters
    ----------
    problem : Problem
        Model and blocks.
    batches : sequence of Tensor
        For `Problem.forward`.
    shown : Survey
        Of this problem.

    Attributes
    ----------
    calls : list of Call
        What the block in hand is called with, a call a batch; at first those of the first block.

    Notes
    -----
    In memory are the calls of one block, and what the others of a chain get beside hidden states. Where the model is no
    chain these are the outputs of all blocks before.
    """

    def __init__(self, problem: Problem, batches: Sequence[Tensor], shown: Survey) -> None:
        self._problem, self._batches, self._shown = problem, batches, shown
        self._place = 0
        self._outputs: list[list[Any]] = [[] for _ in batches]
        self._rests: list[list[Rest]] = []
        if not shown.is_chain:
            self.calls = [self._next_call(*pair) for pair in zip(batches, self._outputs, strict=True)]
            return
        self.calls = []
        for batch in batches:
            calls = _calls_or_none(problem, batch, _hand_on(problem)) if shown.hands_on else None
            calls = calls or _observed(problem, batch)[0]
            self.calls.append(calls[0])
            self._rests.append([call.rest for call in calls])

    def fork(self) -> Stream:
        """Return a stream that stands where this one stands, and goes its own way from here."""
        other = copy.copy(self)
        other._outputs = [list(of_batch) for of_batch in self._outputs]
        return other

    def advance(self, outputs: Iterable[Any]) -> None:
        """Go on to the next block.

        Parameters
        ----------
        outputs : iterable
            All that the block in hand returns (see `whole_output`), batch by batch.
        """
        self._place += 1
        is_last = self._place == len(self._problem.blocks)
        if self._shown.is_chain:
            pairs = zip([hidden_of(output) for output in outputs], self._rests, strict=True)
            self.calls = [] if is_last else [Call(x, rests[self._place]) for x, rests in pairs]
            return
        for of_batch, output in zip(self._outputs, outputs, strict=True):
            of_batch.append(output)
        given = zip(self._batches, self._outputs, strict=True)
        self.calls = [] if is_last else [self._next_call(*pair) for pair in given]

    def _next_call(self, batch: Tensor, outputs: list[Any]) -> Call:
        changed = self._shown.changed
        answers = [_giving(output, copied=index in changed) for index, output in enumerate(outputs)]
        return calls_up_to(self._problem, batch, answers)[-1]


def _observed(problem: Problem, batch: Tensor, *, keep: bool = False) -> tuple[list[Call], list[Any]]:
    """Run the model; return the call and the output of each block.

    Without `keep` hidden states are kept of the first block only, and outputs of none. With it they are copies, since
    the model may go on to work on them in place.
    """
    calls: list[Call] = []
    outputs: list[Any] = []
    called: list[nn.Module] = []

    def note_call(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = _call(args, kwargs)
        hidden = call.hidden.clone() if keep else call.hidden if not calls else call.hidden[:0]
        called.append(block)
        calls.append(Call(hidden, call.rest))

    def note_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(_copied(output))

    with ExitStack() as stack:
        for block in problem.blocks:
            hook = block.module.register_forward_pre_hook(note_call, with_kwargs=True, prepend=True)
            stack.callback(hook.remove)
            if keep:
                stack.callback(block.module.register_forward_hook(note_output).remove)
        problem.forward(problem.model, batch)
    if called != [block.module for block in problem.blocks]:
        raise CellError(_NOT_IN_ORDER)
    return calls, outputs


def _call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    if args:
        return Call(args[0], Rest(args[1:], kwargs))
    tensors = [name for name, value in kwargs.items() if isinstance(value, Tensor)]
    if not tensors:
        raise CellError(f"a block is called without a tensor (given: {', '.join(kwargs) or 'nothing'})")
    keyword = "hidden_states" if "hidden_states" in tensors else tensors[0]
    rest = {name: value for name, value in kwargs.items() if name != keyword}
    return Call(kwargs[keyword], Rest((), rest, keyword))


class _ReachedError(Exception):
    """Ends the run of a model at the block that was to be reached."""


_Answer = Callable[[Call], Any]


def calls_up_to(problem: Problem, batch: Tensor, answers: Sequence[_Answer]) -> list[Call]:
    """Run the model with answers in the place of its first blocks; return their calls, and the next block's.

    Raises
    ------
    CellError
        The model does not call these blocks once each, in order.
    """
    calls: list[Call] = []

    def note(index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if index != len(calls):
            raise CellError(_NOT_IN_ORDER)
        calls.append(_call(args, kwargs))
        if len(calls) > len(answers):
            raise _ReachedError

    with ExitStack() as stack:
        for index, block in enumerate(problem.blocks):
            hook = block.module.register_forward_pre_hook(
                lambda _, args, kwargs, index=index: note(index, args, kwargs), with_kwargs=True, prepend=True
            )
            stack.callback(hook.remove)
        for block, answer in zip(problem.blocks, answers, strict=False):
            stack.enter_context(runs_as(block.module, lambda *_, answer=answer, **__: answer(calls[-1])))
        try:
            problem.forward(problem.model, batch)
        except _ReachedError:
            return calls
    raise CellError(_NOT_IN_ORDER)


def _hand_on(problem: Problem) -> list[_Answer]:
    return [lambda call: call.hidden] * (len(problem.blocks) - 1)


def _giving(output: Any, *, copied: bool = False) -> _Answer:
    return lambda _: _copied(output) if copied else output


def _calls_or_none(problem: Problem, batch: Tensor, answers: Sequence[_Answer]) -> list[Call] | None:
    """Return the calls of all blocks, or None where the model wants other answers than these."""
    try:
        return calls_up_to(problem, batch, answers)
    except Exception:  # a model that wants more of a block than a tensor is run as it is
        return None


def same_rests(calls: list[Call], others: list[Call] | None) -> bool:
    """Return whether blocks are called with the same things beside their hidden states."""
    if others is None:
        return False
    pairs = ([(call.rest.args, call.rest.kwargs, call.rest.keyword) for call in some] for some in (calls, others))
    (leaves, shape), (likes, other_shape) = (tree_flatten(rests) for rests in pairs)
    return shape == other_shape and all(
        _equal(leaf, like) if isinstance(leaf, Tensor) and isinstance(like, Tensor) else leaf is like or leaf == like
        for leaf, like in zip(leaves, likes, strict=True)
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def _copied(output: Any, change: Callable[[Tensor], Tensor] = Tensor.clone) -> Any:
    """Return the same with each floating-point tensor copied, or changed."""
    return tree_map(
        lambda leaf: change(leaf) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, output
    )


def _versions(output: Any) -> list[int]:
    """Return how often each tensor was changed in place."""
    return [leaf._version for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]

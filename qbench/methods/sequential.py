"""Walk through a model block by block, each block fed by its already quantized predecessors.

Layers of a block that receive the same tensor (q, k and v; gate and up) share one Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.problem import Block, Problem, TargetLayer


@dataclass(frozen=True)
class Gram:
    """Second moments of a layer's inputs, averaged over calibration tokens.

    Attributes
    ----------
    hessian : Tensor of shape (in_features, in_features)
        ``E[x x^T]`` of the inputs x that the quantized predecessors give.
    cross : Tensor of shape (in_features, in_features)
        ``E[x_fp x^T]``, with x_fp the same tokens' inputs in the full-precision model; `hessian` itself where the walk
        was not asked for them.
    target : Tensor of shape (in_features, in_features)
        ``E[x_fp x_fp^T]``, likewise.
    """

    hessian: Tensor
    cross: Tensor
    target: Tensor


@dataclass(frozen=True)
class Stage:
    """Layers that share their input and are solved together, with the moments of that input."""

    layers: tuple[TargetLayer, ...]
    gram: Gram


@torch.no_grad()
def walk(problem: Problem, *, true_sequential: bool, full_precision_targets: bool) -> Iterator[Stage]:
    """Yield the stages of a model in forward order; the caller writes the quantized weights before it goes on.

    Parameters
    ----------
    problem : Problem
        Model, blocks and calibration data.
    true_sequential : bool
        Whether a layer also sees the quantized layers before it in its own block. Otherwise the inputs inside a block
        are those of its full-precision layers.
    full_precision_targets : bool
        Whether `Gram.cross` and `Gram.target` are measured on the full-precision model (AdaRound's asymmetric
        reconstruction), which keeps a second stream of activations, and the inputs of one block's layers.

    Yields
    ------
    Stage
    """
    if not problem.blocks:
        return
    grouped = _input_groups(problem)
    calls = [_calls(problem, batch) for batch in problem.calibration]
    hidden = [of_batch[0].hidden for of_batch in calls]
    by_block = [[of_batch[index].rest for of_batch in calls] for index in range(len(problem.blocks))]
    del calls
    reference = hidden
    for block, groups, arguments in zip(problem.blocks, grouped, by_block, strict=True):
        targets: list[list[Tensor]] | None = None
        if full_precision_targets:
            # Nothing in this block is quantized yet: this is the full-precision block, fed by its own stream.
            runs = [_observed(block, groups, x, rest) for x, rest in zip(reference, arguments, strict=True)]
            targets, reference = [seen for seen, _ in runs], [output for _, output in runs]
        for members in [[group] for group in groups] if true_sequential else [groups]:
            places = [groups.index(group) for group in members]
            wanted = None if targets is None else [[seen[place] for place in places] for seen in targets]
            grams = _grams(block, members, hidden, wanted, arguments)
            for layers, gram in zip(members, grams, strict=True):
                yield Stage(tuple(layers), gram)
        hidden = [_run(block.module, x, rest) for x, rest in zip(hidden, arguments, strict=True)]


@torch.no_grad()
def full_precision_hessians(problem: Problem) -> dict[str, Tensor]:
    """Return ``E[x x^T]`` of every target layer's inputs in the model as it is, in one pass.

    Returns
    -------
    dict of str to Tensor of shape (in_features, in_features)
    """
    moments: dict[str, Tensor] = {}
    for stage in walk(problem, true_sequential=False, full_precision_targets=False):
        moments.update({layer.name: stage.gram.hessian for layer in stage.layers})
    return moments


@dataclass(frozen=True)
class _Rest:
    """What a block is called with beside its hidden states: masks, position embeddings.

    It is a block's own: layers with a sliding window get another mask than their neighbours.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class _Call:
    hidden: Tensor
    rest: _Rest


def _calls(problem: Problem, batch: Tensor, *, keep_all: bool = False) -> list[_Call]:
    """Run the model on a batch; return what each block was called with, hidden states of the first only or of all."""
    calls: list[_Call] = []
    called: list[nn.Module] = []

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        called.append(block)
        hidden = args[0] if args else kwargs["hidden_states"]
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        calls.append(_Call(hidden if keep_all or not calls else hidden[:0], _Rest(args[1:], rest)))

    with ExitStack() as stack:
        for block in problem.blocks:
            stack.callback(block.module.register_forward_pre_hook(note, with_kwargs=True).remove)
        problem.forward(problem.model, batch)
    if called != [block.module for block in problem.blocks]:
        raise CellError("the model does not call each of its blocks once, one after the other")
    return calls


def _input_groups(problem: Problem) -> list[list[list[TargetLayer]]]:
    """Return for each block its target layers, those that get the same tensor together, in the order they are called.

    Raises
    ------
    CellError
        The model calls its blocks in another order, or does more between them than to hand on hidden states: a block
        run on its own does not give what the next one is called with. Or a target layer is not called at all.
    """
    found = []
    calls = _calls(problem, problem.calibration[0][:1], keep_all=True)
    for index, (block, call) in enumerate(zip(problem.blocks, calls, strict=True)):
        groups: dict[int, list[TargetLayer]] = {}
        keep: list[Tensor] = []  # an address may be used again once its tensor is gone

        def note(
            layer: TargetLayer,
            x: Tensor,
            keep: list[Tensor] = keep,
            groups: dict[int, list[TargetLayer]] = groups,
        ) -> None:
            keep.append(x)
            groups.setdefault(id(x), []).append(layer)

        with ExitStack() as stack:
            for layer in block.layers:
                handle = layer.module.register_forward_pre_hook(
                    lambda _, args, layer=layer, note=note: note(layer, args[0])
                )
                stack.callback(handle.remove)
            output = _run(block.module, call.hidden, call.rest)
        if index + 1 < len(calls) and not torch.allclose(output, calls[index + 1].hidden, rtol=1e-3, atol=1e-5):
            raise CellError(f"the model changes the hidden states between its blocks {index} and {index + 1}")
        called = {layer.name for group in groups.values() for layer in group}
        idle = [layer.name for layer in block.layers if layer.name not in called]
        if idle:
            raise CellError(f"layer {idle[0]!r} is never called, though its block runs: its inputs cannot be seen")
        found.append(list(groups.values()))
    return found


def _grams(
    block: Block,
    members: list[list[TargetLayer]],
    hidden: list[Tensor],
    targets: list[list[Tensor]] | None,
    arguments: list[_Rest],
) -> list[Gram]:
    sums: list[list[Tensor]] = [[] for _ in members]
    tokens = 0
    for batch, (x, rest) in enumerate(zip(hidden, arguments, strict=True)):
        seen = _inputs(block, members, x, rest)
        if targets is None:
            products = [[a.T @ a] for a in seen]
        else:
            products = [[a.T @ a, b.T @ a, b.T @ b] for a, b in zip(seen, targets[batch], strict=True)]
        tokens += seen[0].shape[0]
        sums = [
            [total + part for total, part in zip(old, new, strict=True)] if old else new
            for old, new in zip(sums, products, strict=True)
        ]
    means = [[total / tokens for total in group] for group in sums]
    return [Gram(*group) if len(group) == 3 else Gram(group[0], group[0], group[0]) for group in means]


def _observed(
    block: Block, groups: list[list[TargetLayer]], hidden: Tensor, rest: _Rest
) -> tuple[list[Tensor], Tensor]:
    """Run a block; return the input of each group of layers, of shape (tokens, in_features), and the block's output."""
    seen: dict[nn.Module, Tensor] = {}
    with _watched(groups, lambda called, x: seen.update({called: x})):
        output = _run(block.module, hidden, rest)
    return [seen[group[0].module] for group in groups], output


def _inputs(block: Block, groups: list[list[TargetLayer]], hidden: Tensor, rest: _Rest) -> list[Tensor]:
    """Run a block no further than is needed; return the input of each group of layers, of shape (tokens, in_features).

    The layers behind the last group are most of the block's work where the group is an early one.
    """
    seen: dict[nn.Module, Tensor] = {}

    def note(called: nn.Module, x: Tensor) -> None:
        seen[called] = x
        if len(seen) == len(groups):
            raise _AllSeenError

    with _watched(groups, note), suppress(_AllSeenError):
        _run(block.module, hidden, rest)
    return [seen[group[0].module] for group in groups]


class _AllSeenError(Exception):
    """Ends the run of a block in which everything that is wanted has been seen."""


@contextmanager
def _watched(groups: list[list[TargetLayer]], note: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Call `note` with the first layer of each group and its input, of shape (tokens, in_features)."""
    with ExitStack() as stack:
        for group in groups:
            handle = group[0].module.register_forward_pre_hook(
                lambda called, args: note(called, args[0].flatten(0, -2))
            )
            stack.callback(handle.remove)
        yield


def _run(module: nn.Module, hidden: Tensor, rest: _Rest) -> Tensor:
    output = module(hidden, *rest.args, **rest.kwargs)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result

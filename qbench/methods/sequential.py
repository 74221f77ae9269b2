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
    hidden, arguments = _block_inputs(problem)
    reference = hidden
    for block in problem.blocks:
        groups = _input_groups(block, hidden[0], arguments[0])
        targets: list[list[Tensor]] | None = None
        if full_precision_targets:
            # Nothing in this block is quantized yet: this is the full-precision block, fed by its own stream.
            runs = [_observed(block, groups, x, kwargs) for x, kwargs in zip(reference, arguments, strict=True)]
            targets, reference = [seen for seen, _ in runs], [output for _, output in runs]
        for members in [[group] for group in groups] if true_sequential else [groups]:
            places = [groups.index(group) for group in members]
            wanted = None if targets is None else [[seen[place] for place in places] for seen in targets]
            grams = _grams(block, members, hidden, wanted, arguments)
            for layers, gram in zip(members, grams, strict=True):
                yield Stage(tuple(layers), gram)
        hidden = [_run(block.module, x, kwargs) for x, kwargs in zip(hidden, arguments, strict=True)]


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


def _block_inputs(problem: Problem) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Return what the first block is called with, batch by batch: hidden states, and keyword arguments.

    The keyword arguments (masks, position embeddings) are the same for all blocks of a model.
    """
    hidden: list[Tensor] = []
    arguments: list[dict[str, Any]] = []

    def remember(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden.append(args[0] if args else kwargs.pop("hidden_states"))
        arguments.append(kwargs)

    handle = problem.blocks[0].module.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        for batch in problem.calibration:
            problem.forward(problem.model, batch)
    finally:
        handle.remove()
    return hidden, arguments


def _input_groups(block: Block, hidden: Tensor, kwargs: dict[str, Any]) -> list[list[TargetLayer]]:
    """Return the target layers, those that get the same tensor together, in the order they are called."""
    groups: dict[int, list[TargetLayer]] = {}
    keep: list[Tensor] = []  # an address may be used again once its tensor is gone

    def note(layer: TargetLayer, x: Tensor) -> None:
        keep.append(x)
        groups.setdefault(id(x), []).append(layer)

    with ExitStack() as stack:
        for layer in block.layers:
            handle = layer.module.register_forward_pre_hook(lambda _, args, layer=layer: note(layer, args[0]))
            stack.callback(handle.remove)
        _run(block.module, hidden[:1], _first_row(kwargs, hidden.shape[0]))
    return list(groups.values())


def _first_row(kwargs: dict[str, Any], rows: int) -> dict[str, Any]:
    """Return keyword arguments cut to one row of a batch, wherever they have a batch dimension."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:1] if value.ndim > 1 and value.shape[0] == rows else value
        return tuple(cut(item) for item in value) if isinstance(value, tuple) else value

    return {key: cut(value) for key, value in kwargs.items()}


def _grams(
    block: Block,
    members: list[list[TargetLayer]],
    hidden: list[Tensor],
    targets: list[list[Tensor]] | None,
    arguments: list[dict[str, Any]],
) -> list[Gram]:
    sums: list[list[Tensor]] = [[] for _ in members]
    tokens = 0
    for batch, (x, kwargs) in enumerate(zip(hidden, arguments, strict=True)):
        seen = _inputs(block, members, x, kwargs)
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
    block: Block, groups: list[list[TargetLayer]], hidden: Tensor, kwargs: dict[str, Any]
) -> tuple[list[Tensor], Tensor]:
    """Run a block; return the input of each group of layers, of shape (tokens, in_features), and the block's output."""
    seen: dict[nn.Module, Tensor] = {}
    with _watched(groups, lambda called, x: seen.update({called: x})):
        output = _run(block.module, hidden, kwargs)
    return [seen[group[0].module] for group in groups], output


def _inputs(block: Block, groups: list[list[TargetLayer]], hidden: Tensor, kwargs: dict[str, Any]) -> list[Tensor]:
    """Run a block no further than is needed; return the input of each group of layers, of shape (tokens, in_features).

    The layers behind the last group are most of the block's work where the group is an early one.
    """
    seen: dict[nn.Module, Tensor] = {}

    def note(called: nn.Module, x: Tensor) -> None:
        seen[called] = x
        if len(seen) == len(groups):
            raise _AllSeenError

    with _watched(groups, note), suppress(_AllSeenError):
        _run(block.module, hidden, kwargs)
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


def _run(module: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
    output = module(hidden, **kwargs)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result

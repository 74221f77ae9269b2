"""Walk through a model block by block, each block fed by its already quantized predecessors.

Layers of a block that receive the same tensor (q, k and v; gate and up) share one Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.block_calls import Rest, all_calls, calls_of, run
from qbench.methods.matrices import input_columns, input_key, moments
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.stage import Gram, Inputs, Stage, merge


@torch.no_grad()
def walk(
    problem: Problem,
    *,
    true_sequential: bool,
    full_precision_targets: bool = False,
    quantized_inputs: bool = True,
    keep_inputs: bool = False,
) -> Iterator[Stage]:
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
    quantized_inputs : bool
        Whether a block is fed by its quantized predecessors; otherwise by full-precision ones.
    keep_inputs : bool
        Whether stages carry the inputs themselves, for methods that need more than second moments.

    Yields
    ------
    Stage
        Parts of one shape whose inputs are known at the same time come as one stage, unless inputs are kept.

    Notes
    -----
    In memory are the hidden states between two blocks, for all calibration batches, and the moments of the layers of
    one block. Everything else is made batch by batch and dropped.
    """
    if not problem.blocks:
        return
    grouped = input_groups_of(problem)
    calls = all_calls(problem)
    hidden = [of_batch[0].hidden for of_batch in calls]
    by_block = [[of_batch[index].rest for of_batch in calls] for index in range(len(problem.blocks))]
    del calls
    reference = hidden
    for block, groups, arguments in zip(problem.blocks, grouped, by_block, strict=True):
        targets: list[list[Tensor]] | None = None
        if full_precision_targets or not quantized_inputs:
            # Nothing in this block is quantized yet: this is the full-precision block, fed by its own stream.
            runs = [
                _observed(block, groups if full_precision_targets else [], x, rest)
                for x, rest in zip(reference, arguments, strict=True)
            ]
            reference = [output for _, output in runs]
            targets = [seen for seen, _ in runs] if full_precision_targets else None
            del runs
        for members in [[group] for group in groups] if true_sequential else [groups]:
            places = [groups.index(group) for group in members]
            wanted = None if targets is None else [[seen[place] for place in places] for seen in targets]
            yield from _stages(block, members, hidden, wanted, arguments, keep_inputs=keep_inputs)
        if quantized_inputs:
            hidden = [run(block.module, x, rest) for x, rest in zip(hidden, arguments, strict=True)]
        else:
            hidden = reference


@torch.no_grad()
def full_precision_hessians(problem: Problem) -> dict[str, Tensor]:
    """Return ``E[x x^T]`` of every target layer's inputs in the model as it is, in one pass.

    Returns
    -------
    dict of str to Tensor of shape (groups, columns, columns)
    """
    moments: dict[str, Tensor] = {}
    for stage in walk(problem, true_sequential=False):
        for part, own in zip(stage.parts, stage.places(), strict=True):
            moments.update({layer.name: stage.gram.hessian[own] for layer in part})
    return moments


def input_groups_of(problem: Problem) -> list[list[list[TargetLayer]]]:
    """Return for each block its target layers, those that get the same tensor together, in the order they are called.

    Raises
    ------
    CellError
        The model calls its blocks in another order, or does more between them than to hand on hidden states: a block
        run on its own does not give what the next one is called with. Or a target layer is not called at all.
    """
    found = []
    calls = calls_of(problem, problem.calibration[0][:1], keep_all=True)
    for index, (block, call) in enumerate(zip(problem.blocks, calls, strict=True)):
        groups: dict[tuple[object, ...], list[TargetLayer]] = {}
        keep: list[Tensor] = []  # an address may be used again once its tensor is gone

        def note(
            layer: TargetLayer,
            x: Tensor,
            keep: list[Tensor] = keep,
            groups: dict[tuple[object, ...], list[TargetLayer]] = groups,
        ) -> None:
            keep.append(x)
            # Layers on other levels (a first layer that keeps 8 bits) are solved apart.
            key = (id(x), *input_key(layer.module), layer.grid.levels, layer.grid.group_size)
            groups.setdefault(key, []).append(layer)

        with ExitStack() as stack:
            for layer in block.layers:
                handle = layer.module.register_forward_pre_hook(
                    lambda _, args, layer=layer, note=note: note(layer, args[0])
                )
                stack.callback(handle.remove)
            output = run(block.module, call.hidden, call.rest)
        if not torch.isfinite(output).all():
            raise CellError(f"block {index} gives NaN or infinite hidden states on the calibration data")
        if index + 1 < len(calls) and not torch.allclose(output, calls[index + 1].hidden, rtol=1e-3, atol=1e-5):
            raise CellError(f"the model changes the hidden states between its blocks {index} and {index + 1}")
        called = {layer.name for group in groups.values() for layer in group}
        idle = [layer.name for layer in block.layers if layer.name not in called]
        if idle:
            raise CellError(f"layer {idle[0]!r} is never called, though its block runs: its inputs cannot be seen")
        found.append(list(groups.values()))
    return found


def _stages(
    block: Block,
    members: list[list[TargetLayer]],
    hidden: list[Tensor],
    targets: list[list[Tensor]] | None,
    arguments: list[Rest],
    *,
    keep_inputs: bool,
) -> list[Stage]:
    sums: list[list[Tensor]] = [[] for _ in members]
    kept: list[Inputs] = [Inputs([], []) for _ in members]
    counts = [0] * len(members)
    for batch, (x, rest) in enumerate(zip(hidden, arguments, strict=True)):
        seen = _inputs(block, members, x, rest)
        for index, (group, given) in enumerate(zip(members, seen, strict=True)):
            module = group[0].module
            wanted = given if targets is None else targets[batch][index]
            columns = input_columns(module, given)
            counts[index] += columns.shape[1]
            products = [moments(columns, columns)]
            if targets is not None:
                full = input_columns(module, wanted)
                products += [moments(full, columns), moments(full, full)]
            old = sums[index]
            sums[index] = [total.add_(part) for total, part in zip(old, products, strict=True)] if old else products
            if keep_inputs:
                kept[index].seen.append(given)
                kept[index].full.append(wanted)
    means = [[total.div_(count) for total in group] for group, count in zip(sums, counts, strict=True)]
    grams = [Gram(*group) if len(group) == 3 else Gram(group[0], group[0], group[0]) for group in means]
    if keep_inputs:
        return [Stage((tuple(g),), gram, own) for g, gram, own in zip(members, grams, kept, strict=True)]
    return merge([Stage((tuple(group),), gram) for group, gram in zip(members, grams, strict=True)])


def _observed(block: Block, groups: list[list[TargetLayer]], hidden: Tensor, rest: Rest) -> tuple[list[Tensor], Tensor]:
    """Run a block; return the input of each group of layers and the block's output."""
    seen: dict[nn.Module, Tensor] = {}
    with _watched(groups, lambda called, x: seen.update({called: x})):
        output = run(block.module, hidden, rest)
    return [seen[group[0].module] for group in groups], output


def _inputs(block: Block, groups: list[list[TargetLayer]], hidden: Tensor, rest: Rest) -> list[Tensor]:
    """Run a block no further than is needed; return the input of each group of layers.

    The layers behind the last group are most of the block's work where the group is an early one.
    """
    seen: dict[nn.Module, Tensor] = {}

    def note(called: nn.Module, x: Tensor) -> None:
        seen[called] = x
        if len(seen) == len(groups):
            raise _AllSeenError

    with _watched(groups, note), suppress(_AllSeenError):
        run(block.module, hidden, rest)
    return [seen[group[0].module] for group in groups]


class _AllSeenError(Exception):
    """Ends the run of a block in which everything that is wanted has been seen."""


@contextmanager
def _watched(groups: list[list[TargetLayer]], note: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Call `note` with the first layer of each group and its input."""
    with ExitStack() as stack:
        for group in groups:
            handle = group[0].module.register_forward_pre_hook(lambda called, args: note(called, args[0].detach()))
            stack.callback(handle.remove)
        yield

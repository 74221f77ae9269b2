"""Walk through a model block by block, each block fed by its already quantized predecessors.

Layers of a block that receive the same tensor (q, k and v; gate and up) share one Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.block_calls import Call, Stream, Survey, calls_up_to, survey, whole_output
from qbench.methods.matrices import column_pieces, input_key, moments
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
    one block; the outputs of all earlier blocks only where the model does more between two blocks than to hand them on.
    Everything else is made batch by batch and dropped.
    """
    if not problem.blocks:
        return
    shown = survey(problem)
    grouped = _input_groups(shown)
    kept = len(problem.blocks) > 1 or not shown.hands_on or isinstance(problem.calibration, list | tuple)
    stream = Stream(problem, problem.calibration, shown) if kept else _Alone(problem)
    reference = stream.fork() if full_precision_targets or not quantized_inputs else None
    for block, groups in zip(problem.blocks, grouped, strict=True):
        calls = stream.calls
        targets: list[list[Tensor]] | None = [] if full_precision_targets else None
        if reference is not None:
            # Nothing in this block is quantized yet: this is the full-precision block, fed by its own stream.
            reference.advance(_noted(block, groups, reference.calls, targets))
        for members in [[group] for group in groups] if true_sequential else [groups]:
            places = [groups.index(group) for group in members]
            wanted = None if targets is None else [[seen[place] for place in places] for seen in targets]
            yield from _stages(block, members, calls, wanted, keep_inputs=keep_inputs)
        if reference is not None and not quantized_inputs:
            stream = reference
        elif block is not problem.blocks[-1]:
            stream.advance(whole_output(block.module, call) for call in calls)


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


class _Alone:
    """The stream of a problem with one block, whose calibration data are too many to keep: it reads them each time."""

    def __init__(self, problem: Problem) -> None:
        self.calls = _Calls(problem)

    def fork(self) -> _Alone:
        """Return the same: there is nothing behind its block that it could go on to."""
        return self

    def advance(self, outputs: Iterable[Any]) -> None:
        """Let the block run for what is noted of its runs."""
        for _ in outputs:
            pass


class _Calls(Sequence[Call]):
    """The calls of a problem's one block."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def __len__(self) -> int:
        return len(self._problem.calibration)

    def __getitem__(self, batch: Any) -> Any:
        return calls_up_to(self._problem, self._problem.calibration[batch], [])[0]


def _input_groups(shown: Survey) -> list[list[list[TargetLayer]]]:
    """Return for each block its target layers, those that get the same tensor together, in the order they are called.

    Raises
    ------
    CellError
        Hidden states are not finite, or a layer is called more than once in a run of its block.
    """
    found = []
    for index, (seen, finite) in enumerate(zip(shown.seen, shown.finite, strict=True)):
        if not finite:
            raise CellError(f"block {index} gives NaN or infinite hidden states on the calibration data")
        names = [layer.name for layer, _ in seen]
        often = [name for name in names if names.count(name) > 1]
        if often:
            raise CellError(f"layer {often[0]!r} is called more than once when its block runs: it has no single input")
        groups: dict[tuple[object, ...], list[TargetLayer]] = {}
        for layer, given in seen:
            # Layers on other levels (a first layer that keeps 8 bits) are solved apart.
            key = (given, *input_key(layer.module), layer.grid.levels, layer.grid.group_size)
            groups.setdefault(key, []).append(layer)
        found.append(list(groups.values()))
    return found


def _stages(
    block: Block,
    members: list[list[TargetLayer]],
    calls: Sequence[Call],
    targets: list[list[Tensor]] | None,
    *,
    keep_inputs: bool,
) -> list[Stage]:
    sums: list[list[Tensor]] = [[] for _ in members]
    kept: list[Inputs] = [Inputs([], []) for _ in members]
    counts = [0] * len(members)
    for batch, call in enumerate(calls):
        seen = _inputs(block, members, call)
        for index, (group, given) in enumerate(zip(members, seen, strict=True)):
            module = group[0].module
            wanted = given if targets is None else targets[batch][index]
            full_pieces = repeat(None) if targets is None else column_pieces(module, wanted)
            for columns, full in zip(column_pieces(module, given), full_pieces, strict=False):
                counts[index] += columns.shape[1]
                products = [moments(columns, columns)]
                if full is not None:
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


def _noted(
    block: Block, groups: list[list[TargetLayer]], calls: Sequence[Call], inputs: list[list[Tensor]] | None
) -> Iterator[Any]:
    """Run a block on each call and yield what it returns; put the input of each group of layers into `inputs`."""
    for call in calls:
        seen: dict[nn.Module, Tensor] = {}
        with _watched([] if inputs is None else groups, seen.__setitem__):
            output = whole_output(block.module, call)
        if inputs is not None:
            inputs.append([seen[group[0].module] for group in groups])
        yield output


def _inputs(block: Block, groups: list[list[TargetLayer]], call: Call) -> list[Tensor]:
    """Run a block no further than is needed; return the input of each group of layers.

    The layers behind the last group are most of the block's work where the group is an early one.
    """
    seen: dict[nn.Module, Tensor] = {}

    def note(called: nn.Module, x: Tensor) -> None:
        seen[called] = x
        if len(seen) == len(groups):
            raise _AllSeenError

    with _watched(groups, note), suppress(_AllSeenError):
        whole_output(block.module, call)
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

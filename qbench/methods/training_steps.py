"""How a step's batch goes through the model: in parts, in which precision, and what is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError, checkpoint

from qbench.errors import CellError
from qbench.methods.problem import Problem
from qbench.methods.stand_in import runs_as
from qbench.methods.training_options import WeightTraining


def parts_of(batch: Any, count: int) -> list[Any]:
    """Cut a training batch into equal parts.

    Parameters
    ----------
    batch : Tensor, or a tuple, list or mapping of them
        The first dimension of each tensor counts windows (or images).
    count : int
        How many parts.

    Raises
    ------
    CellError
        The batch is of another kind, or cannot be cut evenly.
    """
    if count == 1:
        return [batch]
    if isinstance(batch, Tensor):
        if batch.ndim == 0 or len(batch) % count:
            rows = "no rows" if batch.ndim == 0 else f"{len(batch)} rows"
            raise CellError(f"accumulation {count}: a training batch has {rows} (allowed: a multiple of it)")
        return list(batch.split(len(batch) // count))
    if isinstance(batch, Mapping):
        cut = {key: parts_of(value, count) for key, value in batch.items()}
        return [{key: parts[index] for key, parts in cut.items()} for index in range(count)]
    if type(batch) in (tuple, list):
        columns = [parts_of(value, count) for value in batch]
        return [type(batch)(column[index] for column in columns) for index in range(count)]
    raise CellError(
        f"accumulation {count}: a training batch is {type(batch).__name__}, which nobody knows to cut "
        "(allowed: tensors, or tuples, lists or mappings of them; or accumulation: 1)"
    )


def autocast(options: WeightTraining, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the loss of a batch is computed; see `WeightTraining.precision`."""
    if options.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def recomputed(problem: Problem, *, wanted: bool) -> Iterator[None]:
    """Within the context, keep of each block its inputs alone, and run it again in the backward pass.

    Parameters
    ----------
    problem : Problem
        Its blocks are wrapped, and are as they were at the end.
    wanted : bool
        Whether anything is to be done at all.

    Raises
    ------
    CellError
        The model is a single block, of which nothing would be saved; or, in a backward pass, a block does another
        thing when it is run again.
    """
    if not wanted:
        yield
        return
    if any(block.module is problem.model for block in problem.blocks):
        raise CellError(
            f"gradient_checkpointing: {type(problem.model).__name__} is a single block, which would be run again as a "
            "whole and save nothing (allowed here: gradient_checkpointing: false)"
        )
    with ExitStack() as stack:
        for block in problem.blocks:
            stack.enter_context(runs_as(block.module, _recomputing(block.module.forward, block.module)))
        try:
            yield
        except CheckpointError as error:
            said = str(error).partition("\n")[0]
            raise CellError(
                f"gradient_checkpointing: a block does another thing when it is run again ({said}) "
                "(allowed here: gradient_checkpointing: false)"
            ) from error


def _recomputing(forward: Callable[..., Any], module: nn.Module) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        before = _versions(given)
        found = checkpoint(forward, *args, use_reentrant=False, **kwargs)
        if _versions(given) != before:
            raise CellError(
                f"gradient_checkpointing: a block ({type(module).__name__}) changes its input in place, so it cannot "
                "be run again (allowed here: gradient_checkpointing: false)"
            )
        return found

    return run


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    return [one._version for one in tensors]

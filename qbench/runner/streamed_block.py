"""One decoder block as a method is asked to solve it, with hidden states in the place of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.block_calls import Rest, run
from qbench.methods.problem import Block, Problem


class BlockAlone(nn.Module):
    """A block as a model of its own, which runs on hidden states.

    Parameters
    ----------
    block : nn.Module
        The block.
    rest_of : callable
        What it is called with beside some hidden states.
    """

    def __init__(self, block: nn.Module, rest_of: Callable[[Tensor], Rest]) -> None:
        super().__init__()
        self.block = block
        self._rest_of = rest_of

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the hidden states that the block makes of others."""
        return run(self.block, hidden, self._rest_of(hidden))


def block_problem(
    rest_of: Callable[[Tensor], Rest], block: Block, hidden: Sequence[Tensor], seed_of: Callable[[str], int]
) -> Problem:
    """Return the problem of a block alone.

    Parameters
    ----------
    rest_of : callable
        What the block is called with beside some hidden states.
    block : Block
        The block with its target layers.
    hidden : sequence of Tensor of shape (rows, window, ...)
        What goes into it, batch by batch; nothing for a method that reads no data.
    seed_of : callable
        See `Problem`.
    """
    return Problem(
        model=BlockAlone(block.module, rest_of),
        blocks=[block],
        calibration=hidden,
        forward=_forward,
        loss=_needs_the_whole,
        train_batches=_needs_the_whole,
        tokens_of=_tokens_of,
        seed_of=seed_of,
    )


@contextmanager
def numbered(index: int) -> Iterator[None]:
    """Let an error tell of a block by its place in the model: alone, each is the first one."""
    try:
        yield
    except CellError as error:
        raise CellError(str(error).replace("block 0 ", f"block {index} ", 1)) from error


def _forward(model: nn.Module, hidden: Tensor) -> object:
    return model(hidden)


def _tokens_of(hidden: Tensor) -> int:
    return hidden.shape[:2].numel()


def _needs_the_whole(*_: Any) -> NoReturn:
    raise CellError("the method trains the whole model, of which one block at a time is in memory")

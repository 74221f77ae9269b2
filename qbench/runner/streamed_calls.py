"""What the blocks of a streamed model are called with, found without running any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.block_calls import Call, Rest, calls_up_to, run, same_rests
from qbench.methods.problem import Block, Problem
from qbench.methods.stand_in import runs_as
from qbench.runner.hidden_states import HiddenStates, Spill
from qbench.tasks.streamed_model import StreamedTask

_FORMS: tuple[Callable[[Tensor], Any], ...] = (lambda hidden: hidden, lambda hidden: (hidden, None))
"""What a block can return: hidden states, or these and something more that nobody asks for."""


class BlockCalls:
    """How a streamed model calls its blocks.

    Parameters
    ----------
    task : StreamedTask
        The model with its data.

    Attributes
    ----------
    names : list of str
        Of the blocks, in forward order.
    model : Problem
        The whole model with its blocks, none of which is asked to be quantized.
    """

    def __init__(self, task: StreamedTask) -> None:
        self._task = task
        blocks = task.blocks()
        self.names = [name for name, _ in blocks]
        self._modules = [module for _, module in blocks]
        self.model = Problem(
            model=task.model,
            blocks=[Block(module, ()) for module in self._modules],
            calibration=[],
            forward=task.forward,
            loss=task.loss,
            train_batches=task.train_batches,
            tokens_of=task.tokens_of,
            seed_of=lambda purpose: 0,
        )
        self._form: Callable[[Tensor], Any] | None = None
        self._rests: dict[tuple[int, ...], list[Call]] = {}

    def enter(self, batches: Sequence[Tensor], spill: Spill) -> HiddenStates:
        """Return the hidden states that go into the first block, batch by batch.

        Raises
        ------
        CellError
            The model does more between its blocks than to hand on hidden states, or calls them with something that
            depends on the tokens.
        """
        found: HiddenStates | None = None
        for index, batch in enumerate(batches):
            hidden = self._enter(batch)
            if found is None:
                shapes = [one.shape + hidden.shape[batch.ndim :] for one in batches]
                found = spill.hold(shapes, hidden.dtype)
            found.put(index, hidden)
        assert found is not None
        return found

    def advance(self, index: int, block: nn.Module, hidden: HiddenStates, *, into: HiddenStates | None = None) -> None:
        """Put what a block makes of hidden states in their place, or elsewhere.

        Parameters
        ----------
        index : int
            The block's place.
        block : nn.Module
            The block, with the weights it is to have.
        hidden : HiddenStates
            What goes into it.
        into : HiddenStates, optional
            Where to put what comes out of it.
        """
        rest_of, after = self.rests(index), hidden if into is None else into
        for place, given in enumerate(hidden):
            after.put(place, run(block, given, rest_of(given)))

    def rests(self, index: int) -> Callable[[Tensor], Rest]:
        """Return what tells what a block is called with beside hidden states.

        Parameters
        ----------
        index : int
            The block's place.

        Returns
        -------
        callable
            Takes hidden states of shape (rows, window, ...), with as many rows as a batch had, or one.
        """
        by_shape = {shape: calls[index].rest for shape, calls in self._rests.items()}
        return lambda hidden: by_shape[tuple(hidden.shape[:2])]

    @contextmanager
    def ending(self, final: Callable[[], Tensor]) -> Iterator[None]:
        """Let the model run without its blocks: what it gets out of them is what `final` returns."""
        form = self._form
        assert form is not None
        with ExitStack() as stack:
            for module in self._modules:
                stack.enter_context(runs_as(module, lambda *_, **__: form(final())))
            yield

    def _enter(self, batch: Tensor) -> Tensor:
        calls = self._calls(batch)
        self._note(batch, calls)
        if len(batch) > 1 and (1, *batch.shape[1:]) not in self._rests:
            # A block is shown to a method on one row.
            self._note(batch[:1], self._calls(batch[:1]))
        return calls[0].hidden

    def _note(self, batch: Tensor, calls: list[Call]) -> None:
        bare = [Call(call.hidden[:0], call.rest) for call in calls]
        known = self._rests.setdefault(tuple(batch.shape[:2]), bare)
        if known is not bare and not same_rests(known, bare):
            raise CellError(
                f"{self._task.spec.label()}: what its blocks are called with depends on the tokens "
                "(device_map: streamed keeps it once; allowed: device_map: whole)"
            )

    def _calls(self, batch: Tensor) -> list[Call]:
        for form in _FORMS if self._form is None else (self._form,):
            answers = [lambda call, form=form: form(call.hidden)] * (len(self._modules) - 1)
            try:
                calls = calls_up_to(self.model, batch, answers)
            except (CellError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                continue  # the model wants another form
            if all(_same(call.hidden, calls[0].hidden) for call in calls):
                self._form = form
                return calls
        raise CellError(
            f"{self._task.spec.label()}: the model does more between its blocks than to hand on hidden states "
            "(device_map: streamed runs them one after the other; allowed: device_map: whole)"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())

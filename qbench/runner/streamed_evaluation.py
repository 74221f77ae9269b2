"""The evaluation of a model of which one block at a time is in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qbench.errors import CellError
from qbench.runner.hidden_states import Spill
from qbench.runner.streamed_calls import BlockCalls
from qbench.tasks.evaluation import Evaluation
from qbench.tasks.streamed_model import StreamedTask


class StreamedEvaluation:
    """Takes the evaluation windows through the blocks, and measures the loss behind the last one.

    Parameters
    ----------
    task : StreamedTask
        The model with its data.
    calls : BlockCalls
        How it calls its blocks.
    spill : Spill
        Gives room for hidden states.

    Attributes
    ----------
    hidden : HiddenStates
        What goes into the block in hand, a tensor a batch.
    """

    def __init__(self, task: StreamedTask, calls: BlockCalls, spill: Spill) -> None:
        self._task, self._calls = task, calls
        batches = task.evaluation_batches()
        self._places = {_key(batch): place for place, batch in enumerate(batches)}
        self.hidden = calls.enter(batches, spill)

    def advance(self, index: int, block: nn.Module) -> None:
        """Run a block, with the weights that are deployed."""
        self._calls.advance(index, block, self.hidden)

    def finish(self, metrics: tuple[str, ...]) -> Evaluation:
        """Return what the task measures, once all blocks have been run.

        Raises
        ------
        CellError
            A metric needs other windows than those of the loss.
        """
        place = 0

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal place
            tokens = kwargs.get("input_ids", args[0] if args else None)
            found = None if tokens is None else self._places.get(_key(tokens))
            if found is None:
                raise CellError(
                    f"{self._task.spec.label()}: a metric runs the whole model on windows of its own (allowed for "
                    "device_map: streamed: loss)"
                )
            place = found

        hook = self._task.model.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
        try:
            with self._calls.ending(lambda: self.hidden[place]):
                return self._task.evaluate(self._task.model, metrics)
        finally:
            hook.remove()


def _key(batch: Tensor) -> tuple[int, bytes]:
    return len(batch), batch.cpu().numpy().tobytes()

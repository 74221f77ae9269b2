"""What the ranks of a training need in memory, told from what one process would need."""

from __future__ import annotations

from collections.abc import Mapping

WHOLE_ON_EACH = ("teacher", "weights in bfloat16")
"""What every rank has all of, if only for a moment: a teacher is copied before it is shared out."""

OF_THE_WORKER = ("models", "Hessians")
"""What the process has that started the ranks."""


def parts_of_ranks(parts: Mapping[str, int], count: int, model: int, *, own_device: bool) -> dict[str, int]:
    """Return what is in memory at the peak of a training that is shared out, by what takes it.

    Parameters
    ----------
    parts : mapping of str to int
        Bytes that one process would need.
    count : int
        The ranks.
    model : int
        Bytes of the model, which each rank loads as a whole before it keeps its rows.
    own_device : bool
        Whether each rank has a GPU: what is told is then the first one, which the worker's models are on as well.
        Otherwise all ranks have the memory of the machine together.

    Returns
    -------
    dict of str to int
    """
    found = {name: parts[name] for name in OF_THE_WORKER if name in parts}
    found["models of ranks"] = model if own_device else count * model
    for name, size in parts.items():
        if name in WHOLE_ON_EACH:
            found[name] = size if own_device else count * size
        elif name not in OF_THE_WORKER:
            found[name] = -(-size // count) if own_device else size
    return found

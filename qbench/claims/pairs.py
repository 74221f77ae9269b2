"""Arms that differ in one thing: same budget, data, optimizer and rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qbench.claims.measured import Measured
from qbench.claims.subject import LackingError, Subject

_BUDGET = (
    "steps",
    "batch_size",
    "learning_rate",
    "optimizer",
    "momentum",
    "schedule",
    "clip_norm",
    "bn_training",
    "bn",
)

Budget = tuple[Any, ...]


def budget(cell: Measured) -> Budget:
    """Return what arms of one comparison have in common."""
    return tuple(cell.options.get(name) for name in _BUDGET)


def best_of_common(subject: Subject, seed: int, bits: int, names: Sequence[str]) -> dict[str, Measured]:
    """Return the best cell of each arm, over the budgets (rates among them) that all arms were run with.

    Parameters
    ----------
    subject : Subject
        The model and quantizer.
    seed, bits : int
        Where.
    names : sequence of str
        The methods.

    Raises
    ------
    LackingError
        An arm is missing, or no budget is common to all.
    """
    arms = {name: _by_budget(subject.arms(seed, bits, name)) for name in names}
    common = set.intersection(*map(set, arms.values()))
    if not common:
        raise LackingError(f"{' and '.join(names)} with the same budget and rate at {bits} bits")
    return {
        name: min((held[one] for one in common), key=lambda cell: (cell.excess, cell.label))
        for name, held in arms.items()
    }


def budgets_in_common(subject: Subject, seed: int, bits: int, names: Sequence[str]) -> int:
    """Return how many budgets (rates among them) all arms were run with.

    Parameters
    ----------
    subject : Subject
        The model and quantizer.
    seed, bits : int
        Where.
    names : sequence of str
        The methods.
    """
    return len(set.intersection(*(set(_by_budget(subject.arms(seed, bits, name))) for name in names)))


def _by_budget(cells: Sequence[Measured]) -> dict[Budget, Measured]:
    """Return one cell a budget. Two of one budget differ in how the method rounds, say: the better counts."""
    held: dict[Budget, Measured] = {}
    for cell in cells:
        # An arm that does not move is a control, not a training.
        if cell.options.get("learning_rate") != 0:
            other = held.get(budget(cell))
            held[budget(cell)] = cell if other is None or cell.excess < other.excess else other
    return held


def gain(cell: Measured, rounded: Measured) -> float:
    """Return ``G = 1 - D / D_rtn``, the share of rounding's excess that is recovered."""
    return 1 - cell.excess / rounded.excess

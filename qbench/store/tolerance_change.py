"""Which tolerances a new baseline widens or narrows: those on another ground, since on the same one they are fixed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from qbench.store.noise import Pool, pool_of
from qbench.store.results import CellResult, Results
from qbench.store.tolerance import ELSEWHERE, FULL_PRECISION_FLOOR, Tolerances

_EQUAL = 1e-9


@dataclass(frozen=True)
class ToleranceChange:
    """A tolerance, then and now.

    Attributes
    ----------
    pool : Pool
        Model, method and bits.
    measure : str
        ``loss`` (nats a token or an image), ``accuracy`` (a share) or ``sqnr`` (of the weights, decibels).
    old, new : float
        Then and now.
    freedom : int
        Degrees of freedom behind the new one; 0 where nothing was repeated.
    cells : int
        How many cells have it.
    """

    pool: Pool
    measure: str
    old: float
    new: float
    freedom: int
    cells: int

    @property
    def wider(self) -> bool:
        """Whether more passes than before."""
        return self.new > self.old


def tolerance_changes(old: Results, new: Results) -> tuple[ToleranceChange, ...]:
    """Return the tolerances that differ for cells that are in both; widened ones first, by how much.

    Parameters
    ----------
    old, new : Results
        The baseline before and after.
    """
    before, after = Tolerances(old), Tolerances(new)
    found: Counter[tuple[Pool, str, float, float, int]] = Counter()
    for label in set(old.cells) & set(new.cells):
        found.update(_of_cell(before, after, old.cells[label], new.cells[label]))
    changes = [ToleranceChange(*key, cells) for key, cells in found.items()]
    return tuple(sorted(changes, key=lambda one: (one.old / one.new, str(one))))


def above_floor(results: Results) -> tuple[ToleranceChange, ...]:
    """Return the tolerances of losses that measured noise has raised, against the floor; the widest first.

    Parameters
    ----------
    results : Results
        What is blessed where there was nothing before.
    """
    tolerances = Tolerances(results)
    found: Counter[tuple[Pool, float, float, int]] = Counter()
    for cell in results.cells.values():
        own, floor = tolerances.of(cell, alike=False), FULL_PRECISION_FLOOR if cell.is_fp else ELSEWHERE
        if own.measured and own.loss > floor:
            found[pool_of(cell.axes), floor, own.loss, own.freedom] += 1
    changes = [
        ToleranceChange(pool, "loss", floor, loss, freedom, cells)
        for (pool, floor, loss, freedom), cells in found.items()
    ]
    return tuple(sorted(changes, key=lambda one: (-one.new, str(one))))


def _of_cell(
    before: Tolerances, after: Tolerances, old: CellResult, new: CellResult
) -> list[tuple[Pool, str, float, float, int]]:
    pool = pool_of(old.axes)
    then, now = before.of(old, alike=False), after.of(new, alike=False)
    found = [(pool, "loss", then.loss, now.loss, now.freedom), (pool, "accuracy", then.accuracy, now.accuracy, 0)]
    if old.sqnr is not None and new.sqnr is not None:
        found.append((pool, "sqnr", then.sqnr, now.sqnr, now.freedom))
    return [one for one in found if not math.isclose(one[2], one[3], rel_tol=_EQUAL)]

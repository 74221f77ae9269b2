"""Stored cells run again: which are drawn, and whether what comes out is what was stored."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qbench.runner.identity import PlannedCell
from qbench.runner.planning import Plan
from qbench.seeds import derive_seed
from qbench.store.folder import RunFolder
from qbench.store.ground import unlike
from qbench.store.record import Record
from qbench.store.same_result import Difference, differences
from qbench.store.tolerance import UNMEASURED

Outcome = Literal["same bytes", "within bound", "differs", "failed", "no bound"]


@dataclass(frozen=True)
class Verified:
    """What became of one stored cell that was run again.

    Attributes
    ----------
    label : str
        The cell's.
    outcome : str
        ``same bytes``; ``within bound``: on other ground, where bytes may differ; ``differs``; ``failed``: it did not
        run to its end again; ``no bound``: on other ground, and it has no loss to be judged by (a probe's cell).
    ground : dict of str to (str, str)
        What bytes depend on and what is not as it was: stored, now.
    differences : tuple of Difference
        Between both results.
    change : float or None
        Of the loss, nats a token (or an image).
    bound : float or None
        How far the loss may move; None on equal ground, where nothing may.
    reason : str or None
        Why it failed.
    """

    label: str
    outcome: Outcome
    ground: dict[str, tuple[str, str]]
    differences: tuple[Difference, ...] = ()
    change: float | None = None
    bound: float | None = None
    reason: str | None = None

    @property
    def red(self) -> bool:
        """Whether the stored result is not what comes out now."""
        return self.outcome in ("differs", "failed")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-like data."""
        return {
            "label": self.label,
            "outcome": self.outcome,
            "ground": {name: list(values) for name, values in self.ground.items()},
            "differences": [one._asdict() for one in self.differences],
            "loss_change": self.change,
            "bound": self.bound,
            "reason": self.reason,
        }


def draw(stored: Sequence[PlannedCell], count: int | None, suite: str, seed: int = 0) -> list[PlannedCell]:
    """Return some of the stored cells, in their order.

    Parameters
    ----------
    stored : sequence of PlannedCell
        Cells whose records are sound.
    count : int or None
        How many; all of them where it is None or there are no more.
    suite : str
        Its name; with `seed` it names the stream.
    seed : int
        Another seed draws others.
    """
    if count is None or count >= len(stored):
        return list(stored)
    by_label = sorted(stored, key=lambda one: one.cell.label())
    chosen = random.Random(derive_seed("verify", suite, seed)).sample(by_label, count)
    ids = {one.cell_id for one in chosen}
    return [one for one in stored if one.cell_id in ids]


def plan_again(drawn: Sequence[PlannedCell], source: RunFolder, target: RunFolder) -> Plan:
    """Return the plan that runs cells again in another folder, with the stored weights that probes read.

    Parameters
    ----------
    drawn : sequence of PlannedCell
        From `draw`.
    source : RunFolder
        Where they are stored; it is read only.
    target : RunFolder
        Where they are run again.
    """
    target.weights_path("").parent.mkdir(parents=True, exist_ok=True)
    for cell_id in {point for one in drawn for point in one.points.values()}:
        # A copy: a point that is drawn too is run again, over it.
        shutil.copyfile(source.weights_path(cell_id), target.weights_path(cell_id))
    first = {(one.cell.model, one.cell.seed): index for index, one in reversed(list(enumerate(drawn)))}
    todo = sorted(drawn, key=lambda one: (not one.cell.is_fp, first[one.cell.model, one.cell.seed]))
    return Plan(todo, {}, [])


def by_threads(drawn: Sequence[PlannedCell], records: Mapping[str, Record]) -> dict[int, list[PlannedCell]]:
    """Return the cells by the threads that they were run with: the last bits of sums depend on them."""
    found: dict[int, list[PlannedCell]] = {}
    for one in drawn:
        found.setdefault(int(records[one.cell_id].environment.get("threads", 1)), []).append(one)
    return found


def judge(stored: Record, again: Record, bound: float = UNMEASURED) -> Verified:
    """Compare a stored result with what came out now.

    Parameters
    ----------
    stored, again : Record
        Of one cell.
    bound : float
        How far the loss may move on other ground, nats a token (or an image).
    """
    ground = unlike(stored.environment, again.environment)
    if again.status != "ok":
        return Verified(stored.label, "failed", ground, reason=f"{again.status}: {again.reason}")
    found = tuple(differences(stored, again))
    change = None if stored.loss is None or again.loss is None else again.loss - stored.loss
    if not found:
        return Verified(stored.label, "same bytes", ground, change=change)
    if not ground:
        return Verified(stored.label, "differs", ground, found, change)
    if change is None:
        return Verified(stored.label, "no bound", ground, found)
    # Not `<=` turned around: a loss that is no number is beyond every bound.
    outcome: Outcome = "within bound" if abs(change) <= bound else "differs"
    return Verified(stored.label, outcome, ground, found, change, bound)

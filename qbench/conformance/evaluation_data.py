"""The properties that no method and no quantizer sees evaluation data: what it was tuned on cannot judge it.

Reading is noticed as `qbench.tasks.evaluation_fence` notices it, which also says what it cannot notice. And a method
solves its problem beside a small task that has evaluation data, then beside another: who finds them, by a search
through the process say, shows it by other codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, MissingError
from qbench.conformance.tiny_model import LENGTH, TOKENS
from qbench.conformance.trial import Trial
from qbench.methods.problem import Solution
from qbench.tasks.evaluation import Evaluation, announce
from qbench.tasks.evaluation_fence import noted
from qbench.tasks.text import ThreeTexts

_ALLOWED = "(allowed: calibration and training data)"
_SAMPLES = 4


class TinyTask:
    """Evaluation data for the tiny problem, held where a method that searches for such data finds them.

    Parameters
    ----------
    seed : int
        Another seed gives other data.
    """

    def __init__(self, seed: int) -> None:
        chance = torch.Generator().manual_seed(seed)
        self.evaluation = torch.randint(0, TOKENS, (_SAMPLES, LENGTH), generator=chance)

    def evaluation_batches(self, limit: int | None = None) -> list[Tensor]:
        """Return them in one batch."""
        announce("evaluation", "the tiny task")
        return [self.evaluation[:limit]]

    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Evaluation:
        """Return nothing: that it was asked for is what counts."""
        announce("evaluation", "the tiny task")
        return Evaluation({}, [])


def method_sees_none(trial: Trial) -> None:
    """Make sure that a method reads no evaluation data, and that its codes do not depend on any."""
    first, other = _solved_beside(trial, 0), _solved_beside(trial, 1)
    if _same(first, other):
        return
    if not _same(first, _solved_beside(trial, 0)):
        raise MissingError("needs a method that gives the same when it solves a problem again")
    raise BrokenError(f"other evaluation data give other codes {_ALLOWED}")


def _solved_beside(trial: Trial, seed: int) -> Solution:
    task = TinyTask(seed)
    with noted(ThreeTexts().evaluation_files()) as read:
        outcome = trial.solve()
    del task
    if read:
        raise BrokenError(f"it read {read[0]} {_ALLOWED}")
    if outcome.solution is None:
        raise MissingError("needs a solution, and there is none")
    return outcome.solution


def _same(one: Solution, other: Solution) -> bool:
    return one.layers.keys() == other.layers.keys() and all(
        torch.equal(found.codes, other.layers[name].codes)
        and torch.equal(found.grid.scale, other.layers[name].grid.scale)
        for name, found in one.layers.items()
    )


def quantizer_sees_none(case: Case) -> None:
    """Make sure that a quantizer reads no evaluation data."""
    with noted(ThreeTexts().evaluation_files()) as read:
        case.again()
    if read:
        raise BrokenError(f"it read {read[0]} {_ALLOWED}")

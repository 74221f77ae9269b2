"""In which order the cells of a run on many machines begin."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from qbench.runner.durations import Durations, kind_of
from qbench.runner.identity import PlannedCell
from qbench.runner.queue import Group, group_of


def longest_first(todo: Sequence[PlannedCell], durations: Durations) -> list[PlannedCell]:
    """Return cells in the order of Graham's rule, so that no long one is left for the end.

    Full-precision cells come first, since they gate the others; then the cells of the model that takes longest in all,
    the longest of these first. Cells of one model and seed stay together: a worker keeps its model loaded. What is not
    known to be short counts as long, and what takes as long as another stays in its place.

    Parameters
    ----------
    todo : sequence of PlannedCell
        In the order of a plan.
    durations : Durations
        How long they may take.

    References
    ----------
    R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17 (1969): the longest first ends
    at most a third later than the best order.
    """
    kinds = [kind_of(one.cell) for one in todo]
    expected = durations.expected_of(set(kinds))
    known = {kind: math.inf if seconds is None else seconds for kind, seconds in expected.items()}
    total: dict[Group, float] = defaultdict(float)
    place: dict[Group, int] = {}
    groups = [group_of(one) for one in todo]
    for index, (group, kind) in enumerate(zip(groups, kinds, strict=True)):
        total[group] += known[kind]
        place.setdefault(group, index)

    def rank(index: int) -> tuple[bool, float, int, float]:
        group = groups[index]
        return not todo[index].cell.is_fp, -total[group], place[group], -known[kinds[index]]

    return [todo[index] for index in sorted(range(len(todo)), key=rank)]

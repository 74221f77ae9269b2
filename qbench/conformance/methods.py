"""The contract of a method: which properties it keeps, and on which trials they are tried."""

from __future__ import annotations

from qbench.conformance.blame import told
from qbench.conformance.contract import Report, Row, judge
from qbench.conformance.grids import grid_kinds
from qbench.conformance.solutions import SOLUTIONS
from qbench.conformance.surroundings import one_thread, seeded, settings_kept
from qbench.conformance.trial import Trial
from qbench.methods.base import Method

OTHERS = ("ones", "silent", "images", "folded", "cuda")


def check(method: Method) -> Report:
    """Try the contract on a method, on every kind of grid that it does not refuse.

    Parameters
    ----------
    method : Method
        With its options; one with a long budget takes its time.
    """
    trials = [Trial(method, kind) for kind in grid_kinds()]
    try:
        with settings_kept():
            taken = [trial for trial in trials if trial.refusal is None]
    except Exception as error:  # a stranger's code can fail in any way
        seen = f"refuses_grid: {told(error, type(method))}"
        return Report("method", method.name, (Row("refuses with reasons", "failed", seen),))
    if not taken:
        return Report("method", method.name, (Row("takes a grid", "failed", f"it refuses all: {trials[0].refusal}"),))
    taken[0].is_first = True
    others = [Trial(method, taken[0].grid_kind, kind, taken[0]) for kind in OTHERS]
    with settings_kept(), one_thread(), seeded(0):
        rows = judge(SOLUTIONS, [*trials, *others], type(method), str)
    refused = [f"{trial.grid_kind.name} refused: {trial.refusal}" for trial in trials if trial.refusal is not None]
    tried = "; ".join([*(str(trial) for trial in taken), *refused])
    return Report("method", method.name, (Row("tried on", "info", tried), *rows))

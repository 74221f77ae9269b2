"""Methods whose second rank does not live to the end; a plugin like any other, for the ranks too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.methods.ste_qat import StraightThroughQAT

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class Trouble(StraightThroughQAT):
    """The first rank waits for the second, which has other plans.

    Attributes
    ----------
    plan : str
        ``die``; or ``sleep``: both ranks leave the number of their process in `folder`.
    """

    plan: str = "die"
    folder: str = ""

    def solve(self, problem: Problem) -> Solution:
        from torch import distributed

        assert problem.sharding is not None
        if self.plan == "sleep":
            Path(self.folder, f"pid-{problem.sharding.rank}").write_text(f"{os.getpid()} ")
            time.sleep(600)
        if problem.sharding.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier()
        raise AssertionError("nobody is there to wait for")

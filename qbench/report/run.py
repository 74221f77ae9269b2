"""What a report is made from: the records of one suite, and the cells it should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from qbench.claims.catalogue import judge
from qbench.report.entries import Axes
from qbench.report.leaderboard import Leaderboard, leaderboard

if TYPE_CHECKING:
    from qbench.claims.base import Judgement
    from qbench.store.comparison import Comparison
    from qbench.store.record import Record
    from qbench.suite.xref import Xref


@dataclass(frozen=True)
class Run:
    """Records of one suite.

    Attributes
    ----------
    name : str
        The suite's name; of a folder of records that belongs to no suite, the folder's.
    records : sequence of Record
        All there are of its cells, those of probes too.
    places : sequence of Axes
        Axes of every cell that has a place in the leaderboard, in the suite's order; a skipped one has its reason under
        ``skip``. Empty where the suite is not known: then nothing can be missing.
    probes : sequence of Axes
        The same of probes.
    origin : str
        Where the records were read from, as a reader would name it.
    command : str
        What makes such records again.
    comparison : Comparison or None
        With the baseline; None where there is none.
    uncompared : str
        Why there is no comparison, in one line; empty where there is one.
    damaged : sequence of str
        Files that were left aside, since they are no records; their cells are not among these.
    xref : sequence of Xref
        What others have published of its cells.
    """

    name: str
    records: Sequence[Record]
    places: Sequence[Axes] = ()
    probes: Sequence[Axes] = ()
    origin: str = ""
    command: str = ""
    comparison: Comparison | None = field(default=None, compare=False)
    uncompared: str = ""
    damaged: Sequence[str] = ()
    xref: Sequence[Xref] = ()

    @cached_property
    def board(self) -> Leaderboard:
        """The leaderboard."""
        return leaderboard(self.records, list(self.places) or None, self.xref)

    @cached_property
    def judgements(self) -> list[Judgement]:
        """What the records say of every claim."""
        return judge(self.records, [*self.places, *self.probes])

"""How long the cells of a plan take, as far as that is known before any of them runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qbench.cli import runs
from qbench.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from qbench.runner.durations import Durations
    from qbench.runner.planning import Plan


@dataclass(frozen=True)
class KnownTimes:
    """How long cells take: by those in the run's folder, and of kinds that it has none of by the published ones.

    Attributes
    ----------
    stored, published, both : Durations
        By the folder, by the published records of the suite, and by both, of which the folder counts.
    file : Path
        Of the published records, if it is there or not.
    """

    stored: Durations
    published: Durations
    both: Durations
    file: Path

    @classmethod
    def of(cls, plan: Plan, suite: str) -> KnownTimes:
        """Return what is known of the cells of a plan."""
        from qbench.runner.durations import Durations, kind_of
        from qbench.store.archive import read_archive
        from qbench.store.summary import Summary

        stored, file = Durations.of(plan.held), runs.published_path(suite)
        records = []
        if file.exists() and any(kind_of(one.cell) not in stored.before for one in plan.todo):
            try:
                records = [Summary.of(one) for one in read_archive(file).records]
            except StoreError:  # said by `qbench report`, which is about it
                pass
        published = Durations.of(records)
        return cls(stored, published, Durations({**published.before, **stored.before}), file)

    def seconds(self, kind: tuple[str, str]) -> float | None:
        """Return the seconds that a cell of a kind takes, or None."""
        return self.both.expected(kind)

    def way(self, kind: tuple[str, str]) -> str:
        """Return how that is known: ``stored``, ``published``, ``alike`` (the same method elsewhere) or ``unknown``."""
        if kind in self.both.before:
            return "stored" if kind in self.stored.before else "published"
        return "unknown" if self.seconds(kind) is None else "alike"

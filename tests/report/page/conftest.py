"""Runs to make pages of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from qbench.report.run import Run
from qbench.store.record import Record

MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run(make_record: Callable[..., Record]) -> MakeRun:
    """Make a run of labels with their excess; what is expected without a record is given as axes."""

    def made(
        cells: dict[str, float],
        *others: Record,
        expected: Sequence[dict[str, Any]] = (),
        name: str = "tiny",
        **fields: Any,
    ) -> Run:
        records = [*(make_record(label, excess) for label, excess in cells.items()), *others]
        places = [*({**record.axes} for record in records), *expected]
        return Run(name, records, places, **fields)

    return made

"""Which record stands for a place in the leaderboard when a folder holds several."""

from __future__ import annotations

from collections.abc import Iterable

from qbench.store.record import Record


def newest(records: Iterable[Record]) -> dict[str, Record]:
    """Return one record a label: the one that ended last.

    A folder keeps the records of earlier versions of a cell, whose ids differ while their labels do not.
    """
    chosen: dict[str, Record] = {}
    for record in records:
        other = chosen.get(record.label)
        if other is None or (record.ended, record.cell_id) > (other.ended, other.cell_id):
            chosen[record.label] = record
    return chosen

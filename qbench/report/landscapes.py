"""What a reader sees of landscapes: the truth about methods, in place of a leaderboard of single lattices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from qbench.report.landscape_cells import cells, families, is_landscape
from qbench.report.landscape_corners import corner_sheets
from qbench.report.landscape_sheet import Sheet, sheet
from qbench.report.landscape_steps import step_sheets
from qbench.store.record import Record
from qbench.suite.cell import cell_label

_CORNERS = "codewords"


def landscape_sheets(records: Iterable[Record], expected: Sequence[Any]) -> tuple[Sheet, ...]:
    """Return the tables about landscapes; none where no record is of one.

    Parameters
    ----------
    records : iterable of Record
        Of methods and probes, one a label. What a record lacks, the tables lack.
    expected : sequence of mapping
        `Cell.axes` of the cells of methods, in the order of the suite.
    """
    held = list(records)
    methods = [record for record in held if not record.is_probe]
    probes = sorted(
        (one for one in held if one.is_probe and one.clean and is_landscape(one) and _name(one) == _CORNERS),
        key=lambda one: int(one.axes["seed"] or 0),
    )
    found = cells(methods, expected)
    small = [one for one in found if one.facts["flat"] == 1]
    large = [one for one in found if one.facts["flat"] != 1]
    sheets: list[Sheet] = []
    for family in families(small, frozenset({"reverse", "noise"})):
        for step in dict.fromkeys(one.one.axes["quantizer"] for one in family):
            ours = [one for one in family if one.one.axes["quantizer"] == step]
            sheets += corner_sheets(ours, [probe for probe in probes if probe.axes["quantizer"] == step])
    for family in families(large, frozenset({"metric"})):
        sheets += step_sheets(family)
    return (*sheets, *_lacking(sheets, methods, expected))


def _lacking(sheets: Sequence[Sheet], methods: Sequence[Record], expected: Sequence[Any]) -> list[Sheet]:
    """Return what tables about landscapes leave out: cells without a record, or with one that is not sound."""
    shown = {place for one in sheets for place in one.places}
    held = {record.label: record for record in methods}
    counts: Counter[tuple[str, str, str]] = Counter()
    for axes in expected:
        if (axes["model"], axes["quantizer"]) not in shown or axes.get("skip") is not None:
            continue
        record = held.get(cell_label({name: value for name, value in axes.items() if name != "skip"}))
        if record is None or not record.clean:
            why = "no record" if record is None else "a layer fell back" if record.status == "ok" else record.status
            counts[str(axes["model"]), str(axes["method"]), why] += 1
    rows = [(*found, count) for found, count in counts.items()]
    return sheet("landscapes: not shown", [], "", [], ("model", "method", "why", "cells"), rows)


def _name(probe: Record) -> str:
    described: dict[str, Any] = probe.key["probe"]
    return str(described.get("options", {}).get("name"))

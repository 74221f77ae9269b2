"""What became of probes is told: they have no row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qbench.geometry.base import Probe
from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.report.probes import render_probes
from qbench.spec import Spec
from qbench.store.record import Record
from qbench.suite.cell import Cell
from qbench.suite.enumerate import axes_of

RTN = Cell(Spec(name="m"), AbsMax(name="absmax"), 2, RoundToNearest(name="rtn"), 0, ("loss",))
LOOK = replace(RTN, method=None, probe=Probe(name="look"))


def test_a_suite_without_probes_says_nothing() -> None:
    assert render_probes([], []) == ""


def test_statuses_are_counted_and_reasons_told(make_record: Callable[..., Record]) -> None:
    cells = [replace(LOOK, seed=seed) for seed in range(4)] + [replace(LOOK, seed=9, skip="takes too long"), RTN]
    records = []
    for seed, status in enumerate(("ok", "failed", "failed")):
        reason = None if status == "ok" else "out of memory"
        record = make_record(replace(LOOK, seed=seed).label(), 0.1, status=status, reason=reason)
        record.key["probe"] = {}
        records.append(record)
    probes = axes_of(cell for cell in cells if cell.is_probe)
    assert render_probes(records, probes).splitlines() == [
        "probes: 5: 1 ok, 2 failed, 1 missing, 1 skipped",
        "  look: failed: out of memory (2 of them)",
        "  look: missing: it was not run",
        "  look: skipped: takes too long",
    ]

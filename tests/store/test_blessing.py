"""Blessing: what it shows, what it refuses, and what it leaves alone. A loosened baseline is the known hazard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qbench.errors import StoreError
from qbench.store.blessing import Change, Request, prepare, sealed
from qbench.store.comparison import compare_results
from qbench.store.gathering import gather
from qbench.store.record import Record
from qbench.store.results import Expected, Results
from qbench.store.tolerance import Tolerances

MakeRun = Callable[..., list[Record]]
MakeRecord = Callable[..., Record]

GPTQ, OTHER, RTN, FULL = "m/mse/2b/gptq/s0", "m/mse/2b/gptq/s1", "m/mse/4b/rtn/s0", "m/fp/s0"
EXCESS = {GPTQ: 0.6, OTHER: 0.7, RTN: 0.03}


def bless(
    old: Results | None, new: Results, *, accept: tuple[str, ...] = (), only: set[str] | None = None, gone: str = ""
) -> tuple[Results, Change]:
    labels = frozenset(({*new.cells, *accept} if only is None else only) - {gone})
    request = Request("tiny", "cpu", labels, partial=only is not None, accept=accept)
    return prepare(old, new, request, reason="why", date="2026-11-28")


@pytest.fixture
def old(make_run: MakeRun) -> Results:
    return bless(None, gather(make_run(EXCESS)))[0]


def test_a_first_blessing_needs_no_reason(make_run: MakeRun) -> None:
    merged, change = bless(None, gather(make_run(EXCESS)))
    assert change.first and not change.nothing
    assert change.counts == {"new": 5}
    assert change.default_reason == "first blessing"
    assert compare_results(merged, gather(make_run(EXCESS))).counts == {"same": 5}


def test_blessing_what_is_blessed_is_nothing(make_run: MakeRun, old: Results) -> None:
    assert bless(old, gather(make_run(EXCESS)))[1].nothing
    # Nor is it where the version is another and the numbers are the same.
    assert bless(old, gather(make_run(EXCESS)).model_copy(update={"qbench_version": "9"}))[1].nothing


def test_new_cells_need_no_reason(make_run: MakeRun, old: Results) -> None:
    more = EXCESS | {"m/mse/2b/lsq/s0": 0.5}
    merged, change = bless(old, gather(make_run(more)))
    assert (change.counts, change.added) == ({"new": 1}, ("m/mse/2b/lsq/s0",))
    assert change.default_reason == "cells or repeats added"
    assert set(merged.cells) == {*old.cells, "m/mse/2b/lsq/s0"}


@pytest.mark.parametrize(
    ("excess", "full", "counts"),
    [
        (EXCESS | {RTN: 0.04}, 2.9, {"worse": 1}),
        (EXCESS | {RTN: 0.02}, 2.9, {"better": 1}),
        (EXCESS | {RTN: 0.031}, 2.9, {"moved within noise": 1}),
        ({GPTQ: 0.6, OTHER: 0.7}, 2.9, {"gone": 1}),
        (EXCESS, {"m/s0": 3.0, "m/s1": 2.9}, {"worse": 1, "blocked": 2}),
    ],
    ids=["worse", "better", "moved within the tolerance", "gone", "full precision"],
)
def test_all_that_changes_needs_a_reason(
    make_run: MakeRun, old: Results, excess: dict[str, float], full: Any, counts: dict[str, int]
) -> None:
    _, change = bless(old, gather(make_run(excess, full=full)))
    assert {kind: count for kind, count in change.counts.items() if "tolerance" not in kind} == counts
    assert change.default_reason is None and not change.nothing


def test_cells_that_crept_within_their_tolerance_are_told(make_run: MakeRun, old: Results) -> None:
    # Blessed again and again, such steps would add up in silence.
    _, change = bless(old, gather(make_run(EXCESS | {RTN: 0.0315, GPTQ: 0.599})))
    assert [row.label for row in change.moved] == [RTN, GPTQ]
    assert [row.delta for row in change.moved] == pytest.approx([0.0015, -0.001])


def test_a_tolerance_that_gets_wider_is_told_and_needs_a_reason(make_run: MakeRun, old: Results) -> None:
    # Equal numbers, and repeats that scatter: the very way in which a gate is opened without a cell that changed.
    noisy = gather(make_run(EXCESS), [make_run(EXCESS | {GPTQ: 0.75}), make_run(EXCESS | {GPTQ: 0.45})])
    merged, change = bless(old, noisy)
    assert not change.rows and not change.moved
    (one,) = [one for one in change.loosened if one.measure == "loss"]
    cell = merged.cells[GPTQ]
    assert one.pool[1] == "gptq" and one.old == Tolerances(old).of(cell, alike=False).loss > 0.2
    assert one.new == Tolerances(merged).of(cell, alike=False).loss > one.old
    assert (one.cells, one.freedom) == (2, 4)
    assert change.default_reason is None
    # Back again, to noise that is not measured, is wider too.
    worse = gather(make_run(EXCESS | {GPTQ: 0.61, OTHER: 0.71}))
    quiet = gather(make_run(EXCESS), [make_run(EXCESS)])
    _, back = bless(bless(old, quiet)[0], worse)
    assert [(one.old, one.new) for one in back.loosened if one.pool[1] == "gptq"] == [
        (0.01, pytest.approx(0.3 / 2**0.5))
    ]


def test_what_moved_beyond_its_tolerance_needs_a_reason_and_is_counted(make_record: MakeRecord) -> None:
    def run(sqnr: float) -> list[Record]:
        metrics = {"loss/blocks128": 3.1, "weight_sqnr_db": sqnr}
        return [make_record("m/fp/s0", metrics={"loss/blocks128": 3.0}), make_record(RTN, metrics=metrics)]

    before = bless(None, gather(run(20.0)))[0]
    merged, change = bless(before, gather(run(19.0)))
    assert change.counts == {"moved": 1} and not change.nothing
    assert change.default_reason is None
    assert sealed(merged, change, reason="why", date="2026-11-28").history[-1].counts == {"moved": 1}


def test_a_first_blessing_shows_its_tolerances_and_needs_a_reason_where_they_are_wide(make_run: MakeRun) -> None:
    for scatter, reason in ((0.003, "first blessing"), (2.0, None)):
        noisy = gather(make_run(EXCESS), [make_run(EXCESS | {GPTQ: 0.6 + scatter}), make_run(EXCESS)])
        merged, change = bless(None, noisy)
        (one,) = change.tolerances
        assert one.pool == ("m", "gptq", 2) and one.old == 0.01
        assert one.new == Tolerances(merged).of(merged.cells[GPTQ], alike=False).loss > 0.01
        assert change.default_reason == reason


def test_an_edit_by_hand_shows_and_is_blessed_with_a_reason(make_run: MakeRun, old: Results) -> None:
    blessed = sealed(old, Change("tiny", "cpu", first=True), reason="why", date="2026-11-28")
    read = Results.model_validate_json(blessed.model_dump_json(exclude_defaults=True))
    assert read.intact and read.digest == blessed.digest
    cell = blessed.cells[GPTQ]
    for edit in (
        {"cells": {**blessed.cells, GPTQ: cell.model_copy(update={"repeats": [0.0, 3.0]})}},
        {"cells": {label: one for label, one in blessed.cells.items() if label != RTN}},
        {"environment": {}},
        {"evaluations": {}},
        {"expected": {GPTQ: Expected(reason="never mind")}},
    ):
        edited = blessed.model_copy(update=edit)
        assert not edited.intact
        if "cells" in edit and RTN in edit["cells"]:
            _, change = bless(edited, gather(make_run(EXCESS)))
            assert change.edited and not change.nothing and change.default_reason is None


def test_cells_without_repeats_of_their_own_are_counted(make_run: MakeRun, old: Results) -> None:
    repeated, change = bless(old, gather(make_run(EXCESS), [make_run(EXCESS)]))
    assert (change.held, change.unrepeated) == (5, 0)
    _, change = bless(repeated, gather(make_run(EXCESS | {GPTQ: 0.65})))
    assert (change.held, change.unrepeated) == (5, 1), "what is measured of a cell that changed is another cell's"


def test_repeats_that_only_narrow_need_no_reason(make_run: MakeRun, old: Results) -> None:
    merged, change = bless(old, gather(make_run(EXCESS), [make_run(EXCESS)]))
    assert change.repeats == 5 and not change.loosened and change.tolerances
    assert change.default_reason == "cells or repeats added"
    # They stand for as long as the cell is the same, also where a later run has no repeats.
    again, nothing = bless(merged, gather(make_run(EXCESS)))
    assert nothing.nothing and again.cells == merged.cells
    assert bless(merged, gather(make_run(EXCESS | {GPTQ: 0.61})))[0].cells[GPTQ].repeats == []


def test_another_ground_needs_a_reason(make_run: MakeRun, old: Results) -> None:
    _, change = bless(old, gather(make_run(EXCESS, environment={"torch": "3", "threads": 2})))
    assert change.environment == {"torch": ("2.8.0", "3")}
    assert not change.nothing and change.default_reason is None
    # What no byte depends on is no change.
    beside = gather(make_run(EXCESS, environment={"torch": "2.8.0", "threads": 2, "datasets": "9"}))
    assert bless(old, beside)[1].nothing


def test_only_clean_and_whole_suites_are_blessed(make_run: MakeRun, make_record: MakeRecord) -> None:
    dirty = [record for record in make_run(EXCESS) if record.label not in (GPTQ, RTN)]
    dirty += [make_record(GPTQ, fallback="rtn"), make_record(RTN, status="failed", reason="out of memory", metrics={})]
    lsq = "m/mse/2b/lsq/s0"
    request = Request("tiny", "cpu", frozenset({*EXCESS, lsq}))
    with pytest.raises(StoreError) as caught:
        prepare(None, gather(dirty), request, reason="", date="")
    assert "not blessed, because of 3 of 4 cells: " in str(caught.value)
    for told in (f"{GPTQ} (a layer fell back)", f"{RTN} (failed: out of memory)", f"{lsq} (missing)"):
        assert told in str(caught.value)
    with pytest.raises(StoreError, match=f"because of 1 of 4 cells: {lsq}"):
        bless_with = Request("tiny", "cpu", request.labels, accept=(GPTQ, RTN))
        prepare(None, gather(dirty), bless_with, reason="", date="")


def test_accepted_failures_are_kept_with_reason_and_date(
    make_run: MakeRun, make_record: MakeRecord, old: Results
) -> None:
    failed = make_record(GPTQ, status="failed", reason="out of memory", metrics={})
    run = [failed if record.label == GPTQ else record for record in make_run(EXCESS)]
    merged, change = bless(old, gather(run), accept=(GPTQ,))
    assert change.accepted == {GPTQ: "failed: out of memory"} and change.default_reason is None
    assert merged.expected == {GPTQ: Expected(reason="why", date="2026-11-28")}
    assert compare_results(merged, gather(run)).passed
    # A first blessing is no excuse.
    assert bless(None, gather(run), accept=(GPTQ,))[1].default_reason is None
    # It stays accepted, as of then, and is let go when it passes.
    later = Request("tiny", "cpu", frozenset(merged.cells))
    again, nothing = prepare(merged, gather(run), later, reason="other", date="2027-01-01")
    assert nothing.nothing and again.expected == merged.expected
    freed, released = bless(merged, gather(make_run(EXCESS)))
    assert freed.expected == {} and released.released == (GPTQ,) and released.counts["fixed"] == 1
    assert released.default_reason is None


def test_a_missing_cell_can_be_accepted(make_run: MakeRun, old: Results) -> None:
    run = [record for record in make_run(EXCESS) if record.label != RTN]
    merged, change = bless(old, gather(run), accept=(RTN,))
    assert change.accepted == {RTN: "missing"} and change.gone == () and RTN not in merged.cells
    found = compare_results(merged, gather(run))
    assert found.counts == {"expected": 1, "same": 4} and found.passed
    # A cell that the suite no longer has is gone with its excuse.
    dropped, change = bless(merged, gather(run))
    assert dropped.expected == {} and change.gone == (RTN,)


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("m/mse/2b/gtpq/s0", f"cannot accept .*did you mean '{GPTQ}'"),
        (GPTQ, "cannot accept .*: nothing is wrong with it"),
    ],
)
def test_an_accepted_label_must_be_a_cell_that_fails(make_run: MakeRun, accept: str, message: str) -> None:
    new = gather(make_run(EXCESS))
    with pytest.raises(StoreError, match=message):
        prepare(None, new, Request("tiny", "cpu", frozenset(new.cells), accept=(accept,)), reason="", date="")


def test_a_part_leaves_the_rest_as_it_is(make_run: MakeRun, old: Results) -> None:
    old.expected["m/mse/2b/lsq/s0"] = Expected(reason="diverges", date="2026-01-01")
    new = gather(make_run({RTN: 0.05}, environment={"torch": "3", "threads": 2}))
    merged, change = bless(old, new, only={RTN, FULL})
    assert {label: cell.loss for label, cell in merged.cells.items() if label != RTN} == {
        label: cell.loss for label, cell in old.cells.items() if label != RTN
    }
    assert change.counts == {"worse": 1} and change.gone == () and merged.expected == old.expected
    # Each cell keeps the ground it was measured on.
    assert merged.ground(merged.cells[OTHER])["torch"] == "2.8.0"
    assert merged.ground(merged.cells[RTN])["torch"] == "3"
    assert set(merged.evaluations) == {"m/s0", "m/s1"}


def test_a_part_must_not_move_full_precision_under_the_rest(make_run: MakeRun, old: Results) -> None:
    moved = gather(make_run({RTN: 0.03}, full=2.95))
    with pytest.raises(StoreError, match="full precision of m/s0 is not what it was"):
        bless(old, moved, only={RTN, FULL})
    # All cells of that model and seed at once may.
    whole = gather(make_run({GPTQ: 0.6, RTN: 0.03}, full=2.95))
    assert bless(old, whole, only={RTN, FULL, GPTQ})[0].cells[FULL].loss == pytest.approx(whole.cells[FULL].loss)


def test_history_grows(make_run: MakeRun, old: Results) -> None:
    first = sealed(old, bless(None, old)[1], reason="first", date="2026-01-01")
    merged, change = bless(first, gather(make_run(EXCESS | {RTN: 0.04})))
    second = sealed(merged, change, reason="a new rule", date="2026-11-28")
    assert [(entry.reason, entry.date, entry.counts.get("worse", 0)) for entry in second.history] == [
        ("first", "2026-01-01", 0),
        ("a new rule", "2026-11-28", 1),
    ]
    assert old.history == []

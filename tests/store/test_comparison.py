"""What a later run is told, cell by cell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.store.baseline import read_baseline
from qbench.store.comparison import Comparison, compare
from qbench.store.gathering import gather
from qbench.store.record import DocumentLosses, Record
from qbench.store.results import Expected, Results
from qbench.store.verdict import ComparisonRow

MakeRun = Callable[..., list[Record]]
MakeRecord = Callable[..., Record]

GPTQ = "m/mse/2b/gptq/s0"
RTN = "m/mse/4b/rtn/s0"
FULL = "m/fp/s0"
EXCESS: dict[str, Any] = {GPTQ: 0.6, "m/mse/2b/gptq/s1": 0.7, "m/mse/2b/gptq/s2": 0.8, RTN: 0.03}


@pytest.fixture
def run(make_run: MakeRun) -> list[Record]:
    return make_run(EXCESS, weights_sha256="ab")


@pytest.fixture
def baseline(run: list[Record]) -> Results:
    return gather(run)


def but(records: list[Record], label: str, **changes: Any) -> list[Record]:
    return [record.model_copy(update=changes) if record.label == label else record for record in records]


def row(records: list[Record], baseline: Results, label: str, **how: Any) -> ComparisonRow:
    return next(row for row in compare(records, baseline, **how).rows if row.label == label)


def test_a_run_equals_its_own_baseline(run: list[Record], baseline: Results) -> None:
    found = compare(run, baseline, exact=True)
    assert found.counts == {"same": len(run)} and found.passed and not found.regressed
    assert found.environment == {} and found.seed_means == ()
    assert all(row.delta == 0 and row.interval == (0, 0) for row in found.rows)
    assert all(row.identical for row in found.rows)


def test_on_equal_ground_two_thousandths_of_a_nat_count(make_run: MakeRun, baseline: Results) -> None:
    for change, verdict in ((0.0019, "same"), (0.0021, "worse"), (-0.0019, "same"), (-0.0021, "better")):
        now = make_run(EXCESS | {RTN: 0.03 + change})
        judged = row(now, baseline, RTN)
        assert (judged.verdict, judged.tolerance) == (verdict, 0.002)
        assert judged.delta == pytest.approx(change)
        assert compare(now, baseline).passed is (verdict == "same")
        assert compare(now, baseline).regressed is (verdict == "worse")


def test_an_excess_that_grew_by_two_percent_is_red(make_run: MakeRun, baseline: Results) -> None:
    assert row(make_run(EXCESS | {GPTQ: 0.6 * 1.02}), baseline, GPTQ).verdict == "worse"


def test_noise_that_was_measured_is_tolerated_and_no_more(make_run: MakeRun, run: list[Record]) -> None:
    noisy = gather(run, [make_run(EXCESS | {GPTQ: 0.606, "m/mse/2b/gptq/s1": 0.696}) for _ in range(3)])
    elsewhere = {"environment": {"torch": "2.9.0", "threads": 2}}
    tolerance = row(make_run(EXCESS, **elsewhere), noisy, GPTQ).tolerance
    assert 0.01 < tolerance < 0.1
    for change, verdict in ((0.99, "same"), (1.01, "worse"), (-1.01, "better")):
        now = make_run(EXCESS | {GPTQ: 0.6 + change * tolerance}, **elsewhere)
        assert row(now, noisy, GPTQ).verdict == verdict
    # The pool of rtn was repeated as well, and is silent.
    assert row(make_run(EXCESS | {RTN: 0.0405}, **elsewhere), noisy, RTN).verdict == "worse"
    # On the same ground equal code gives equal bytes, however noisy other arithmetic is.
    assert row(make_run(EXCESS | {GPTQ: 0.6021}), noisy, GPTQ).verdict == "worse"


def test_on_another_ground_without_repeats_the_noise_is_unmeasured(make_run: MakeRun, baseline: Results) -> None:
    now = make_run(EXCESS | {RTN: 0.045}, environment={"torch": "2.9.0", "threads": 2}, weights_sha256="cd")
    judged = row(now, baseline, RTN)
    assert (judged.verdict, judged.tolerance, judged.note) == ("same", 0.02, "noise unmeasured")
    assert row(now, baseline, GPTQ).tolerance == pytest.approx(0.3), "three sd over the seeds of the row"
    assert compare(now, baseline, exact=True).passed, "other ground may give other weights"
    assert compare(now, baseline).environment == {"torch": ("2.8.0", "2.9.0")}
    assert row(make_run(EXCESS | {RTN: 0.051}, environment={"torch": "2.9.0"}), baseline, RTN).verdict == "worse"


def test_other_weights_on_equal_ground_are_told_and_red_where_asked_for(run: list[Record], baseline: Results) -> None:
    now = but(run, RTN, weights_sha256="cd")
    judged = row(now, baseline, RTN)
    assert (judged.verdict, judged.identical, judged.other_weights) == ("same", False, True)
    assert judged.note == "other weights on equal ground"
    assert compare(now, baseline).passed
    exact = compare(now, baseline, exact=True)
    assert not exact.passed and not exact.regressed
    assert [one["label"] for one in exact.to_json()["rows"] if one["red"]] == [RTN]


def test_what_moves_full_precision_as_well_is_no_change(make_run: MakeRun, baseline: Results) -> None:
    # Below the gate of .001, and every cell with it.
    found = compare(make_run(EXCESS, full=2.9009), baseline)
    assert found.counts == {"same": 7}
    assert all(abs(row.delta or 0) < 1e-9 for row in found.rows if "/fp/" not in row.label)


def test_full_precision_that_moved_blocks_its_cells(make_run: MakeRun, baseline: Results) -> None:
    levels = {"m/s0": 2.9015, "m/s1": 2.9, "m/s2": 2.9}
    found = compare(make_run(EXCESS, full=levels), baseline)
    assert found.counts == {"worse": 1, "blocked": 2, "same": 4} and found.regressed
    verdicts = {row.label: (row.verdict, row.note) for row in found.rows}
    assert verdicts[FULL] == ("worse", "")
    assert verdicts[GPTQ] == verdicts[RTN] == ("blocked", "full precision is worse")
    better = compare(make_run(EXCESS, full={**levels, "m/s0": 2.8985}), baseline)
    assert better.counts == {"blocked": 2, "better": 1, "same": 4} and not better.passed


def test_full_precision_is_not_excused_by_its_documents(
    make_run: MakeRun, baseline: Results, run: list[Record]
) -> None:
    # One document moved by a lot: the interval holds zero, and it is another model all the same.
    moved = [
        row.model_copy(update={"loss_sum": row.loss_sum + 5.0 * (row.document == "d0")}) for row in run[0].documents
    ]
    loss = sum(row.loss_sum for row in moved) / sum(row.tokens for row in moved)
    now = but(run, FULL, documents=moved, metrics={"loss/blocks128": loss})
    judged = row(now, baseline, FULL)
    assert judged.interval is not None and judged.interval.low <= 0
    assert (judged.delta or 0) > 0.001
    assert judged.verdict == "worse"


def test_full_precision_has_a_noise_of_its_own(make_run: MakeRun, run: list[Record]) -> None:
    noisy = gather(run, [make_run(EXCESS, full=2.9 + d) for d in (0.001, -0.001, 0.0005)])
    now = make_run(EXCESS, full=2.9015, environment={"torch": "2.9.0"})
    assert compare(now, noisy).counts == {"same": 7}
    assert row(now, noisy, FULL).tolerance > 0.0015
    assert row(make_run(EXCESS, full=2.9015), noisy, FULL).verdict == "worse", "on the same ground nothing moves it"


@pytest.mark.parametrize(
    ("full", "reason"),
    [
        (None, "full precision is missing"),
        ({"status": "failed", "reason": "out of memory", "metrics": {}, "documents": []}, "full precision failed"),
    ],
)
def test_without_full_precision_nothing_is_judged(
    run: list[Record], baseline: Results, full: dict[str, Any] | None, reason: str
) -> None:
    now = run[1:] if full is None else but(run, FULL, **full)
    behind = {"status": "skipped", "reason": "the full-precision cell failed", "metrics": {}, "documents": []}
    for records in (now, but(now, GPTQ, **behind), [record for record in now if record.label != GPTQ]):
        found = {row.label: row for row in compare(records, baseline).rows}
        assert found[FULL].verdict == ("missing" if full is None else "failed")
        assert (found[GPTQ].verdict, found[GPTQ].note) == ("blocked", reason)
        assert found["m/mse/2b/gptq/s1"].verdict == "same", "another seed has its own full precision"
    failed = but(now, GPTQ, status="failed", reason="killed", metrics={})
    assert row(failed, baseline, GPTQ).verdict == "failed", "what broke by itself says more"


def test_the_baseline_may_lack_full_precision(run: list[Record]) -> None:
    found = {row.label: row for row in compare(run, gather(run[1:])).rows}
    assert found[FULL].verdict == "new"
    assert (found[GPTQ].verdict, found[GPTQ].note) == ("blocked", "full precision is not in the baseline")


def test_a_change_to_both_sides_has_moved_and_is_red(make_run: MakeRun, baseline: Results) -> None:
    mixed = [0.03 + d for d in (0.2, -0.02, 0.0, -0.01, 0.02, -0.02)]
    judged = row(make_run(EXCESS | {RTN: mixed}), baseline, RTN)
    assert judged.interval is not None and judged.interval.low < 0 < judged.interval.high
    assert (judged.delta or 0) > judged.tolerance
    assert (judged.verdict, judged.note) == ("moved", "not on all documents alike")
    found = compare(make_run(EXCESS | {RTN: mixed}), baseline)
    assert not found.passed and not found.regressed


def test_without_the_same_documents_a_change_is_unpaired(
    make_run: MakeRun, run: list[Record], baseline: Results
) -> None:
    def without(records: list[Record]) -> list[Record]:
        return [record.model_copy(update={"documents": []}) for record in records]

    def renamed(records: list[Record]) -> list[Record]:
        def other(one: DocumentLosses) -> DocumentLosses:
            return one.model_copy(update={"document": f"x{one.document}"})

        return [record.model_copy(update={"documents": list(map(other, record.documents))}) for record in records]

    worse = make_run(EXCESS | {RTN: 0.035})
    for now, then in ((worse, gather(without(run))), (without(worse), baseline), (renamed(worse), baseline)):
        judged = row(now, then, RTN)
        assert (judged.verdict, judged.interval, judged.note) == ("worse", None, "unpaired")
        assert row(now, then, GPTQ).verdict == "same"


def test_a_baseline_of_version_1_is_compared_with_unpaired(make_record: MakeRecord) -> None:
    part = read_baseline(Path(__file__).parents[1] / "historic" / "baseline_v1.json").devices["cpu x86_64"]
    now = [
        make_record(
            label,
            cell.loss or 0.0,
            weights_sha256=cell.weights_sha256,
            status=cell.status,
            reason=cell.reason,
            metrics=cell.metrics,
            environment=part.environment,
        )
        for label, cell in part.cells.items()
    ]
    assert compare(now, part, exact=True).passed
    worse = but(now, "m/mse/2b/rtn/s0", metrics={"loss/blocks128": 3.9021})
    judged = row(worse, part, "m/mse/2b/rtn/s0")
    assert (judged.verdict, judged.note, judged.tolerance) == ("worse", "unpaired", 0.002)


def test_a_mean_over_seeds_is_told_where_no_cell_is(make_run: MakeRun, baseline: Results) -> None:
    seeds = [f"m/mse/2b/gptq/s{seed}" for seed in range(3)]
    for sign, verdict in ((1, "worse"), (-1, "better")):
        now = make_run(EXCESS | {label: EXCESS[label] + sign * 0.0016 for label in seeds})
        found = compare(now, baseline)
        assert found.counts == {"same": 7}
        (mean,) = found.seed_means
        assert (mean.label, mean.verdict) == ("m/mse/2b/gptq (mean of 3 seeds)", verdict)
        assert mean.delta == pytest.approx(sign * 0.0016)
        assert mean.tolerance == pytest.approx(0.002 / math.sqrt(3))
        assert mean.interval is not None
        assert not found.passed and found.regressed is (verdict == "worse")
    # Where a cell is told of by itself, its mean adds nothing.
    one = make_run(EXCESS | {label: EXCESS[label] + 0.0016 for label in seeds} | {GPTQ: 0.61})
    assert compare(one, baseline).seed_means == ()
    # To both sides: the mean has not moved.
    both = make_run(EXCESS | {GPTQ: 0.6016, seeds[1]: 0.6984})
    assert compare(both, baseline).seed_means == ()


def test_what_is_gone_or_broken_is_red(run: list[Record], baseline: Results, make_record: MakeRecord) -> None:
    gone = [record for record in run if record.label != GPTQ]
    assert (row(gone, baseline, GPTQ).verdict, row(gone, baseline, GPTQ).note) == ("missing", "no record")
    for broken, note in (
        (make_record(GPTQ, status="diverged", reason="NaN at step 3", metrics={}), "diverged: NaN at step 3"),
        (make_record(GPTQ, status="failed", reason="out of memory", metrics={}), "out of memory"),
        (make_record(GPTQ, status="timeout", reason="after 2 s", metrics={}), "timeout: after 2 s"),
        (make_record(GPTQ, math.inf), "loss is inf"),
        (make_record(GPTQ, math.nan), "loss is nan"),
    ):
        judged = row([*gone, broken], baseline, GPTQ)
        assert (judged.verdict, judged.note) == ("failed", note)
        assert compare([*gone, broken], baseline).regressed
        json.dumps(compare([*gone, broken], baseline).to_json(), allow_nan=False)
    fell = row([*gone, make_record(GPTQ, 3.5, fallback="rtn")], baseline, GPTQ)
    assert (fell.verdict, fell.note) == ("worse", "a layer fell back, in the baseline none")
    other = make_record(GPTQ, metrics={"loss/blocks256": 3.5})
    assert row([*gone, other], baseline, GPTQ).note == "measured as loss/blocks256, the baseline as loss/blocks128"
    assert compare([*gone, other], baseline).regressed
    left_out = make_record(GPTQ, status="skipped", reason="not for this model", metrics={})
    assert row([*gone, left_out], baseline, GPTQ).verdict == "missing"


def test_a_known_failure_is_expected_until_it_passes(run: list[Record], make_record: MakeRecord) -> None:
    for known in (make_record(GPTQ, status="failed", reason="out of memory", metrics={}), None):
        then = [record for record in run if record.label != GPTQ] + ([known] if known else [])
        baseline = gather(then)
        baseline.expected[GPTQ] = Expected(reason="too large for the runner", date="2026-08-01")
        diverged = make_record(GPTQ, status="diverged", reason="NaN", metrics={})
        for now in (then, [*then, diverged], [record for record in then if record.label != GPTQ]):
            judged = row(now, baseline, GPTQ)
            assert judged.verdict == "expected"
            assert judged.note.endswith("expected since 2026-08-01: too large for the runner")
            assert compare(now, baseline).passed
        fixed = compare(run, baseline)
        assert fixed.counts == {"fixed": 1, "same": 6}
        assert not fixed.passed and not fixed.regressed


def test_an_expected_fallback_is_still_judged_by_its_numbers(make_run: MakeRun) -> None:
    def fallen(above: float) -> list[Record]:
        records = make_run(EXCESS | {GPTQ: above})
        layers = [layer.model_copy(update={"fallback": "rtn: Cholesky failed"}) for layer in records[-1].layers]
        return but(records, GPTQ, layers=layers)

    baseline = gather(fallen(0.6))
    baseline.expected[GPTQ] = Expected(reason="one dead layer", date="2026-08-01")
    assert row(fallen(0.6), baseline, GPTQ).verdict == "expected"
    assert row(fallen(0.61), baseline, GPTQ).verdict == "worse"
    assert row(make_run(EXCESS), baseline, GPTQ).verdict == "fixed"
    failed = but(fallen(0.6), GPTQ, status="failed", reason="killed", metrics={})
    assert row(failed, baseline, GPTQ).verdict == "failed", "it was expected to fall back, not to break"
    assert compare([one for one in failed if one.label != GPTQ], baseline).counts == {"missing": 1, "same": 6}


def test_a_new_cell_is_new_unless_it_failed(run: list[Record], baseline: Results, make_record: MakeRecord) -> None:
    label = "m/mse/2b/lsq/s0"
    assert row([*run, make_record(label)], baseline, label).verdict == "new"
    assert compare([*run, make_record(label)], baseline).passed
    assert row([*run, make_record(label, status="failed", metrics={})], baseline, label).verdict == "failed"


def test_a_subset_is_judged_by_what_it_had_to_run(run: list[Record], baseline: Results) -> None:
    subset = [record for record in run if record.axes["method"] in ("fp", "rtn")]
    expected = [record.label for record in subset]
    found = compare(subset, baseline, expected)
    assert found.counts == {"same": 4} and found.left_out == 3
    assert compare(subset, baseline).counts == {"missing": 3, "same": 4}
    assert not compare(subset[:-1], baseline, expected).passed
    assert row(subset, baseline, "m/new/2b/rtn/s0", expected_labels=["m/new/2b/rtn/s0"]).verdict == "missing"


def test_the_worst_comes_first(make_run: MakeRun, baseline: Results, make_record: MakeRecord) -> None:
    now = make_run(EXCESS | {RTN: 0.06, "m/mse/2b/gptq/s1": 0.9, "m/mse/2b/gptq/s2": 0.7, "m/mse/2b/lsq/s1": 1.0})
    now = but(now, GPTQ, status="failed", metrics={})
    found = compare(now, baseline)
    assert [row.verdict for row in found.rows] == ["failed", "worse", "worse", "better", "new", "same", "same", "same"]
    assert [row.label for row in found.rows[1:3]] == ["m/mse/2b/gptq/s1", RTN]


def test_recovery_is_against_full_precision_of_the_same_run(make_run: MakeRun, run: list[Record]) -> None:
    now = make_run(EXCESS, full={"m/s0": 3.9, "m/s1": 2.9, "m/s2": 2.9})
    judged = row(now, gather(run), GPTQ)
    level = run[0].loss or 0.0
    assert judged.old_recovery == pytest.approx(1 - 0.6 / (6.9 - level))
    assert judged.new_recovery == pytest.approx(1 - 0.6 / (6.9 - level - 1))
    assert row(now, gather(run), FULL).old_recovery is None
    # A baseline of before chance was kept takes it from the run, which is of the same model.
    older = gather(but(run, FULL, facts={}))
    assert row(run, older, GPTQ).old_recovery == pytest.approx(1 - 0.6 / (6.9 - level))


def test_json_says_what_is_red(make_run: MakeRun, baseline: Results) -> None:
    found: Comparison = compare(make_run(EXCESS | {RTN: 0.05}), baseline, suite="tiny", device="cpu x86_64")
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (data["regressed"], data["passed"], data["counts"]) == (True, False, {"worse": 1, "same": 6})
    assert (data["suite"], data["device"]) == ("tiny", "cpu x86_64")
    first = data["rows"][0]
    assert (first["label"], first["verdict"], first["red"]) == (RTN, "worse", True)
    assert first["interval"] == pytest.approx([0.02, 0.02])


def test_what_the_suite_has_dropped_is_missing(run: list[Record], baseline: Results) -> None:
    kept = [record for record in run if record.label != GPTQ]
    labels = [record.label for record in kept]
    found = compare(kept, baseline, labels, suite_labels=labels)
    (gone,) = [row for row in found.rows if row.verdict == "missing"]
    assert (gone.label, gone.note) == (GPTQ, "the suite has no such cell any more")
    assert not found.passed and found.left_out == 0
    # Where only a part was asked for, nothing can be said of the rest.
    part = compare(kept, baseline, labels)
    assert part.passed and part.left_out == 1


def test_where_nothing_is_compared_nothing_passes(run: list[Record]) -> None:
    found = compare(run, Results(qbench_version="1", cells={}))
    assert found.counts == {"new": len(run)} and found.nothing and not found.passed
    assert not compare(run, gather(run)).nothing


def test_tolerances_that_pass_nearly_everything_are_told_of(run: list[Record], make_run: MakeRun) -> None:
    loose = gather(run, [make_run(EXCESS | {GPTQ: 3.0})])
    elsewhere = [record.model_copy(update={"environment": {"torch": "2.9.0"}}) for record in run]
    found = compare(elsewhere, loose)
    assert found.wide[0].label == GPTQ and found.wide[0].tolerance > 1
    assert compare(run, loose).wide == ()

"""What holds of every comparison, whatever was measured."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from qbench.store.comparison import Comparison, compare, compare_results
from qbench.store.gathering import gather
from qbench.store.record import Record

MakeRun = Callable[..., list[Record]]

LABELS = [f"m/{quantizer}/{bits}b/{method}/s{seed}" for quantizer in ("mse", "absmax") for bits in (2, 4)
          for method in ("rtn", "gptq") for seed in (0, 1)]  # fmt: skip
excess = st.one_of(st.floats(-0.05, 3.0), st.lists(st.floats(-0.5, 3.0), min_size=6, max_size=6))
runs = st.dictionaries(st.sampled_from(LABELS), excess, min_size=1, max_size=8)
changes = st.dictionaries(
    st.sampled_from(LABELS), st.one_of(st.sampled_from([0.0, 0.001, 0.0019, 0.0021, 0.02]), st.floats(-0.1, 0.1))
)
MIRROR = {"worse": "better", "better": "worse"}


def changed(run: dict[str, float | list[float]], by: dict[str, float]) -> dict[str, float | list[float]]:
    return {
        label: [one + by.get(label, 0.0) for one in above] if isinstance(above, list) else above + by.get(label, 0.0)
        for label, above in run.items()
    }


def verdicts(found: Comparison) -> dict[str, str]:
    return {row.label: row.verdict for row in (*found.rows, *found.seed_means)}


@given(runs, st.floats(1.0, 6.0), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_same_run_again_is_never_red(make_run: MakeRun, run: dict[str, float], full: float, repeats: int) -> None:
    records = make_run(run, full=full, weights_sha256="ab")
    noisy = [make_run(changed(run, dict.fromkeys(run, 0.001 * n)), full=full) for n in range(repeats)]
    found = compare(make_run(run, full=full, weights_sha256="ab"), gather(records, noisy), exact=True)
    assert found.passed and found.counts == {"same": len(records)} and not found.seed_means
    # On another ground it is just as green: its numbers are the same.
    elsewhere = make_run(run, full=full, weights_sha256="cd", environment={"torch": "3"})
    assert compare(elsewhere, gather(records, noisy), exact=True).passed


@given(runs, changes)
@settings(max_examples=80, deadline=None)
def test_swapping_then_and_now_mirrors_the_verdicts(
    make_run: MakeRun, run: dict[str, float], by: dict[str, float]
) -> None:
    then, now = gather(make_run(run)), gather(make_run(changed(run, by)))
    forth, back = verdicts(compare_results(then, now)), verdicts(compare_results(now, then))
    assert back == {label: MIRROR.get(verdict, verdict) for label, verdict in forth.items()}


@given(runs, changes, st.floats(-1.0, 3.0))
@settings(max_examples=80, deadline=None)
def test_what_is_added_to_every_loss_of_both_runs_changes_nothing(
    make_run: MakeRun, run: dict[str, float], by: dict[str, float], constant: float
) -> None:
    # Away from the tolerance itself, where the last bit of a sum would decide.
    by = {
        label: change
        for label, change in by.items()
        if min(abs(abs(change) - edge) for edge in (0.002, 0.00141421)) > 1e-6
    }
    plain = compare(make_run(changed(run, by)), gather(make_run(run)))
    shifted = compare(make_run(changed(run, by), full=2.9 + constant), gather(make_run(run, full=2.9 + constant)))
    assert verdicts(shifted) == verdicts(plain)


@given(st.sampled_from(LABELS), st.floats(0.11, 3.0))
@settings(max_examples=40, deadline=None)
def test_two_percent_more_excess_is_red_where_arithmetic_is_quiet(make_run: MakeRun, label: str, above: float) -> None:
    quiet = gather(make_run({label: above}), [make_run({label: above + n * 1e-8}) for n in (1, 2)])
    for environment, least in (({"torch": "2.8.0", "threads": 2}, 0.002), ({"torch": "3"}, 0.01)):
        found = compare(make_run({label: 1.02 * above}, environment=environment), quiet)
        if abs(0.02 * above - least) > 1e-6:
            assert verdicts(found)[label] == ("worse" if 0.02 * above > least else "same")
            assert found.regressed is (0.02 * above > least)


@given(runs, st.data())
@settings(max_examples=40, deadline=None)
def test_full_precision_that_moved_leaves_nothing_judged(
    make_run: MakeRun, run: dict[str, float], data: st.DataObject
) -> None:
    move = data.draw(st.floats(0.0011, 1.0)) * data.draw(st.sampled_from([1, -1]))
    found = compare(make_run(run, full=2.9 + move), gather(make_run(run)))
    for row in found.rows:
        assert row.verdict == (("worse" if move > 0 else "better") if "/fp/" in row.label else "blocked")
    assert not found.passed

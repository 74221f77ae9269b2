"""Inside, grey, failed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.regimes import Basin, judge, regime
from qbench.claims.statistics import Excess

ORDER = ["inside", "grey", "failed"]

BASIN = Basin.of({"chance_loss": 6.9}, 2.9)

finite = st.floats(-10, 10)


def limits(basin: Basin, se: float) -> tuple[float, float]:
    return basin.tau(se), basin.tau_f(se)


def test_the_thresholds_are_those_of_the_claims() -> None:
    words = Basin.of({"chance_loss": 6.9}, 2.9)
    assert limits(words, 0.01) == (0.05, pytest.approx(0.5 + 0.03))
    assert limits(words, 0.1) == (pytest.approx(0.3), pytest.approx(0.5 + 0.3))
    assert limits(Basin.of({"chance_loss": 9.9}, 2.9), 0.01) == (0.05, pytest.approx(0.7 + 0.03))
    assert limits(Basin.of({}, 2.9), 0.0) == (0.05, 0.5)
    assert limits(Basin.of({"chance_loss": 6.9}, None), 0.0) == (0.05, 0.5)


def test_a_classifier_tolerates_a_share_of_what_it_knows() -> None:
    images = Basin.of({"chance_loss": 2.3, "chance_accuracy": 0.1}, 0.3)
    assert limits(images, 0.0) == (pytest.approx(0.04), pytest.approx(0.4))
    assert limits(images, 0.02) == (pytest.approx(0.06), pytest.approx(0.46))


def test_a_loss_without_sampling_error_states_its_own_tolerance() -> None:
    assert limits(Basin.of({"tolerance": 0.002, "chance_loss": 9.0}, 0.0), 1.0) == (0.002, pytest.approx(0.006))


@given(finite, finite, st.floats(0, 1))
def test_more_excess_is_never_a_better_regime(first: float, second: float, se: float) -> None:
    tau, tau_f = limits(BASIN, se)
    low, high = sorted((first, second))
    assert ORDER.index(regime(low, tau, tau_f)) <= ORDER.index(regime(high, tau, tau_f))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 5), st.floats(0, 10))
def test_noise_narrows_neither_the_basin_nor_the_grey_zone(low: float, high: float, fp: float, chance: float) -> None:
    basin = Basin.of({"chance_loss": chance}, fp)
    quiet, noisy = (limits(basin, se) for se in sorted((low, high)))
    assert quiet[0] <= noisy[0] and quiet[1] <= noisy[1]
    assert quiet[1] > quiet[0] and noisy[1] > noisy[0]


@given(st.floats(0.01, 0.03), st.floats(0.5, 5))
def test_a_row_whose_error_grows_with_its_excess_can_still_fail(share: float, excess: float) -> None:
    row = judge(Excess(excess, document_se=share * excess, per_seed=(excess,)), BASIN)
    assert (row.mean == "failed") == (excess * (1 - 3 * share) > 0.5)


def test_the_limits_belong_to_the_better_side() -> None:
    assert regime(0.05, 0.05, 0.5) == "inside"
    assert regime(math.nextafter(0.05, 1), 0.05, 0.5) == "grey"
    assert regime(0.5, 0.05, 0.5) == "grey"
    assert regime(math.nextafter(0.5, 1), 0.05, 0.5) == "failed"
    assert regime(math.inf, 0.05, 0.5) == regime(math.nan, 0.05, 0.5) == "failed"
    assert regime(-1, 0.05, 0.5) == "inside"


@pytest.mark.parametrize(
    ("per_seed", "text", "agreed"),
    [
        ((0.9, 0.8, 0.7), "failed", "failed"),
        ((0.9, 0.8, 0.3), "failed 2/3", None),
        ((0.9, 0.3, 0.3), "grey 2/3", None),
        ((0.9, 0.3, 0.0), "failed 1/3", None),
        ((0.01,), "inside", "inside"),
    ],
)
def test_seeds_that_disagree_are_shown(per_seed: tuple[float, ...], text: str, agreed: str | None) -> None:
    row = judge(Excess(sum(per_seed) / len(per_seed), per_seed=per_seed), BASIN)
    assert (row.text, row.agreed) == (text, agreed)


def test_seeds_far_apart_do_not_widen_the_basin() -> None:
    # Over seeds the error is .2: three times that would call a mean of .4 "inside".
    row = judge(Excess(0.4, se=0.2, document_se=0.01, per_seed=(0.0, 0.4, 0.8)), BASIN)
    assert row.mean == "grey"
    assert row.tau == 0.05

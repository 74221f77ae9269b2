"""Inside, grey, failed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.regimes import judge, regime, thresholds
from qbench.claims.statistics import Excess

ORDER = ["inside", "grey", "failed"]

finite = st.floats(-10, 10)


def test_the_thresholds_are_those_of_the_claims() -> None:
    assert thresholds(0.01, 2.9, 6.9) == (0.05, 0.5)
    assert thresholds(0.1, 2.9, 6.9) == (pytest.approx(0.3), pytest.approx(3.0))
    assert thresholds(0.01, 2.9, 9.9) == (0.05, pytest.approx(0.7))
    assert thresholds(None, 0.4, 10.4) == (0.05, pytest.approx(1.0))
    assert thresholds(None, 2.9, None) == (0.05, 0.5)


@given(finite, finite, st.floats(0, 1))
def test_more_excess_is_never_a_better_regime(first: float, second: float, se: float) -> None:
    tau, tau_f = thresholds(se, 2.9, 6.9)
    low, high = sorted((first, second))
    assert ORDER.index(regime(low, tau, tau_f)) <= ORDER.index(regime(high, tau, tau_f))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 5), st.floats(0, 10))
def test_noise_narrows_neither_the_basin_nor_the_grey_zone(low: float, high: float, fp: float, chance: float) -> None:
    quiet, noisy = (thresholds(se, fp, chance) for se in sorted((low, high)))
    assert quiet[0] <= noisy[0] and quiet[1] <= noisy[1]
    for tau, tau_f in (quiet, noisy):
        assert tau_f >= 10 * tau


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
    row = judge(Excess(sum(per_seed) / len(per_seed), per_seed=per_seed), 2.9, 6.9)
    assert (row.text, row.agreed) == (text, agreed)


def test_seeds_far_apart_do_not_widen_the_basin() -> None:
    # Over seeds the error is .2: three times that would call a mean of .4 "inside".
    row = judge(Excess(0.4, se=0.2, document_se=0.01, per_seed=(0.0, 0.4, 0.8)), 2.9, 6.9)
    assert row.mean == "grey"
    assert row.tau == 0.05

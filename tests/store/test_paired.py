"""The bootstrap over documents: against scipy, against a closed form, and what it must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.store.paired import Stratum, paired_interval

TOKENS = (120, 40, 300, 80, 260, 150, 90, 210, 60, 170, 130, 220)
DIFFERENCES = (1.5, -0.2, 6.1, 0.4, 3.9, -1.0, 2.2, 3.1, 0.7, -0.9, 2.6, 1.8)


def test_the_ends_are_those_of_scipy() -> None:
    from scipy.stats import bootstrap

    def ratio(d: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:
        return d.sum(axis=axis) / n.sum(axis=axis)

    theirs = bootstrap(
        (np.array(DIFFERENCES), np.array(TOKENS, dtype=float)),
        ratio,
        paired=True,
        confidence_level=0.99,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = paired_interval([Stratum(DIFFERENCES, TOKENS)], "cell")
    width = theirs.high - theirs.low
    assert ours is not None
    # Both are of finitely many draws: a tail of 1 in 200 is known to about a tenth of the width.
    assert ours.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.1 * width)


def test_the_width_is_that_of_the_normal_law_for_many_equal_documents() -> None:
    drawn = np.random.default_rng(1).normal(0.02, 0.1, size=400)
    found = paired_interval([Stratum(tuple(100 * drawn), (100,) * 400)], "cell")
    assert found is not None
    half = 2.5758 * drawn.std() / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert (found.low + found.high) / 2 == pytest.approx(drawn.mean(), abs=0.15 * half)


def test_seeds_are_strata() -> None:
    one = Stratum(DIFFERENCES, TOKENS)
    single = paired_interval([one], "cell")
    several = paired_interval([one] * 4, "cell")
    assert single is not None and several is not None
    # Four independent strata halve the width.
    assert (several.high - several.low) / (single.high - single.low) == pytest.approx(0.5, abs=0.08)


documents = st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 500)), min_size=2, max_size=12)


@given(documents)
def test_swapping_then_and_now_mirrors_the_ends(drawn: list[tuple[float, int]]) -> None:
    differences, tokens = zip(*drawn, strict=True)
    found = paired_interval([Stratum(differences, tokens)], "cell")
    mirrored = paired_interval([Stratum(tuple(-d for d in differences), tokens)], "cell")
    assert found is not None and mirrored is not None
    assert mirrored == pytest.approx((-found.high, -found.low))


@given(documents, st.floats(-2, 2))
def test_the_same_change_on_every_token_moves_the_ends_by_it(drawn: list[tuple[float, int]], change: float) -> None:
    differences, tokens = zip(*drawn, strict=True)
    found = paired_interval([Stratum(differences, tokens)], "cell")
    moved = paired_interval([Stratum(tuple(d + change * n for d, n in drawn), tokens)], "cell")
    assert found is not None and moved is not None
    assert moved == pytest.approx((found.low + change, found.high + change), abs=1e-9)


def test_draws_have_a_name() -> None:
    stratum = [Stratum(DIFFERENCES, TOKENS)]
    assert paired_interval(stratum, "a") == paired_interval(stratum, "a")
    assert paired_interval(stratum, "a") != paired_interval(stratum, "b")


def test_where_there_is_nothing_to_draw() -> None:
    assert paired_interval([], "a") is None
    assert paired_interval([Stratum((0.1,), (5,))], "a") is None
    assert paired_interval([Stratum((0.1, math.nan), (5, 5))], "a") is None
    assert paired_interval([Stratum((0.0, 0.0), (5, 5))], "a") == (0.0, 0.0)

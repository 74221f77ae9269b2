"""Depth is a scale: it has an inverse, and is in proportion to what is lost while that is little."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.diagnosis.depth import EDGE, depth, excess_at

EXCESSES = st.floats(0, 1e3)
TOLERANCES = st.floats(1e-3, 1.0)


@given(EXCESSES, TOLERANCES)
def test_an_excess_comes_back_from_its_depth(excess: float, tolerance: float) -> None:
    assert excess_at(depth(excess, tolerance), tolerance) == pytest.approx(excess, rel=1e-9, abs=1e-12)


@given(st.floats(0, 7), TOLERANCES)
def test_a_depth_comes_back_from_its_excess(deep: float, tolerance: float) -> None:
    assert depth(excess_at(deep, tolerance), tolerance) == pytest.approx(deep, rel=1e-9, abs=1e-12)


@given(EXCESSES, EXCESSES, TOLERANCES)
def test_more_excess_is_deeper(one: float, other: float, tolerance: float) -> None:
    less, more = sorted((one, other))
    assert depth(less, tolerance) <= depth(more, tolerance)


@given(st.floats(-1e3, 0), TOLERANCES)
def test_what_is_gained_has_no_depth(excess: float, tolerance: float) -> None:
    assert depth(excess, tolerance) == 0.0


@given(TOLERANCES)
def test_the_edge_is_where_the_tolerance_is_lost(tolerance: float) -> None:
    assert depth(tolerance, tolerance) == pytest.approx(EDGE)
    assert depth(1e-6 * tolerance, tolerance) == pytest.approx(1e-6, rel=1e-5)
    assert depth(1e6 * tolerance, tolerance) == pytest.approx(math.log(1e6), rel=1e-5)

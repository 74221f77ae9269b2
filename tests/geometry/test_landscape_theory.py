"""The formulas on paper, against lattices that are rounded to and recursions that are followed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qbench.geometry import landscape_theory as theory


@given(rho=st.floats(0.5, 2), share=st.floats(0, 0.9), flat=st.integers(1, 100))
def test_at_the_exit_step_the_mean_square_distance_is_that_of_the_wall(rho: float, share: float, flat: int) -> None:
    step = theory.exit_step(rho, share * rho, flat)
    # A uniform error of a step has a variance of a twelfth of its square.
    assert (share * rho) ** 2 + flat * step**2 / 12 == pytest.approx(rho**2)
    assert theory.compatible_step(rho, flat) == theory.exit_step(rho, 0.0, flat) >= step


def test_uniform_errors_reach_the_wall_at_the_exit_step() -> None:
    chance, step = np.random.default_rng(0), theory.exit_step(1.0, 0.6, 400)
    weights = chance.standard_normal((2000, 400)) * 5
    errors = step * np.round(weights / step) - weights
    start = np.full(400, 0.6 / math.sqrt(400))
    assert np.linalg.norm(errors + start, axis=1).mean() == pytest.approx(1.0, abs=0.005)


def test_second_order_rounding_leaves_earlier_where_most_is_not_visible() -> None:
    # Twice the error of nearest rounding, into (d - s) of d directions: earlier when 2 d / (d - s) > 1, that is always.
    nearest = theory.exit_step(1.0, 0.6, 64)
    for visible in (0, 64, 128):
        found = theory.hessian_exit_step(1.0, 0.6, 64, visible, 256)
        assert found / nearest == pytest.approx(math.sqrt((256 - visible) / 512))
    assert theory.hessian_exit_step(1.0, 0.6, 64, 64, 256) == pytest.approx(0.212, abs=5e-4)


@given(
    offset=st.floats(0.01, 0.99),
    rate=st.floats(1e-3, 0.2),
    error=st.floats(0, 0.95),
    gradient=st.floats(1, 1.5),
    wall=st.floats(0.5, 1),
)
def test_the_slowest_path_that_the_assumptions_allow_takes_no_longer(
    offset: float, rate: float, error: float, gradient: float, wall: float
) -> None:
    bound = theory.first_entry_bound(offset, rate, 1.0, wall, error, gradient)
    assume(bound < 1e5)
    # |z|^2 of the latent weights falls by so much in each update outside, and cannot fall below 0.
    squared, updates = offset**2, 0
    while squared > 0:
        squared -= 2 * rate * wall * (1 - error) - rate**2 * gradient**2
        updates += 1
    assert updates <= math.ceil(bound * (1 + 1e-9))


def test_the_bounds_of_case_a() -> None:
    gradient = 1 + 2e-3 / 0.8**2
    found = [theory.first_entry_bound(0.65, rate, 0.8, 1.0, math.sqrt(0.5), gradient) for rate in (0.02, 0.05, 0.1)]
    assert [round(bound) for bound in found] == [128, 62, 50]


@pytest.mark.parametrize(("error", "rate"), [(1.0, 0.01), (1.2, 0.01), (0.5, 1.0), (0.5, 5.0)])
def test_nothing_is_promised_where_errors_are_too_long_or_steps(error: float, rate: float) -> None:
    assert theory.first_entry_bound(0.5, rate, 1.0, 1.0, error, 1.0) == math.inf

"""The law goes through what was measured, never falls, and is a bowl below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.diagnosis.law import Law, law_of, margin
from qbench.diagnosis.reading import Reading

Make = Callable[..., Reading]
Points = Sequence[tuple[float, float]]

RADII = st.floats(1e-3, 2.0)
POINTS = st.lists(st.tuples(RADII, st.floats(0, 500)), min_size=1, max_size=6, unique_by=lambda point: point[0])


@pytest.fixture(scope="module")
def through(reading: Make) -> Callable[[Points], Law]:
    """Return a function that makes the law of points: relative error, and D in tolerances."""

    def through(points: Points) -> Law:
        return law_of(
            reading(8 - at, 0.05 * excess, relative_error=radius) for at, (radius, excess) in enumerate(points)
        )

    return through


@given(points=POINTS)
def test_it_goes_through_points_that_rise(through: Callable[[Points], Law], points: Points) -> None:
    rising = list(zip(sorted(x for x, _ in points), sorted(y for _, y in points), strict=True))
    law = through(rising)
    for radius, excess in rising:
        assert law.at(radius) == pytest.approx(max(excess, 1e-9), rel=1e-6)


@given(points=POINTS, one=RADII, other=RADII)
def test_it_never_falls(through: Callable[[Points], Law], points: Points, one: float, other: float) -> None:
    law, (less, more) = through(points), sorted((one, other))
    assert 0 < law.at(less) <= law.at(more) * (1 + 1e-6)
    assert law.exponent(less) >= 0


@given(points=POINTS, share=st.floats(0.01, 1))
def test_it_is_a_bowl_below_the_smallest_radius(through: Callable[[Points], Law], points: Points, share: float) -> None:
    law = through(points)
    first = law.radii[0]
    assert law.at(share * first) == pytest.approx(share**2 * law.at(first), rel=1e-9)
    assert law.exponent(share * first) == 2.0


@given(points=POINTS)
def test_the_radius_of_the_basin_is_where_the_tolerance_is_lost(
    through: Callable[[Points], Law], points: Points
) -> None:
    law = through(points)
    radius = law.basin_radius
    if math.isinf(radius):
        assert law.excesses[-1] < 1
    else:
        assert law.at(radius) == pytest.approx(1.0, rel=1e-4)
        assert margin(law, radius) == 1.0
        assert margin(law, 2 * radius) == 0.5


def test_a_power_law_is_found_again(through: Callable[[Points], Law]) -> None:
    law = through([(radius, 40 * radius**3) for radius in (0.02, 0.1, 0.5)])
    for radius in (0.03, 0.3, 0.5, 2.0):
        assert law.at(radius) == pytest.approx(40 * radius**3)
        assert law.exponent(radius) == pytest.approx(3)
    assert law.basin_radius == pytest.approx(40 ** (-1 / 3))


@pytest.mark.parametrize("excess", [0.2, 1.0, 30.0])
def test_of_one_point_it_is_a_bowl_on_either_side(through: Callable[[Points], Law], excess: float) -> None:
    law = through([(0.1, excess)])
    for radius in (0.01, 0.1, 0.4):
        assert law.at(radius) == pytest.approx(excess * (radius / 0.1) ** 2)
    assert law.basin_radius == pytest.approx(0.1 * excess**-0.5)


def test_where_nothing_is_lost_the_basin_has_no_edge(through: Callable[[Points], Law]) -> None:
    law = through([(0.01, 0.0), (0.1, 0.0), (0.3, 0.0)])
    assert law.at(0.3) == pytest.approx(1e-9)
    assert law.basin_radius == math.inf
    assert margin(law, 0.3) == math.inf
    # Of a single point nothing is known of how it goes on, but that a bowl rises.
    assert through([(0.01, 0.0)]).basin_radius == pytest.approx(0.01 * 10**4.5)


def test_where_more_error_cost_less_the_mean_stands_for_both(through: Callable[[Points], Law]) -> None:
    law = through([(0.1, 4.0), (0.2, 1.0), (0.4, 9.0)])
    assert law.excesses == pytest.approx((2.0, 2.0, 9.0), rel=1e-6)
    assert law.at(0.15) == pytest.approx(2.0, rel=1e-6)


def test_radii_that_are_all_but_the_same_give_no_overflow(through: Callable[[Points], Law]) -> None:
    law = through([(0.1, 0.01), (math.nextafter(0.1, 1), 100.0)])
    assert law.at(1.0) == math.inf
    assert 0.1 <= law.basin_radius <= math.nextafter(0.1, 1)


def test_readings_come_in_any_order(reading: Make) -> None:
    ladder = [reading(8, 1e-4), reading(4, 0.02), reading(3, 0.3), reading(2, 2.0)]
    assert law_of(ladder) == law_of(reversed(ladder))
    assert law_of(ladder).radii == tuple(sorted(one.relative_error for one in ladder))


def test_the_edge_is_bracketed_where_it_was_measured_on_both_sides() -> None:
    assert Law((0.1, 0.2), (0.5, 2.0)).brackets_edge
    assert not Law((0.1, 0.2), (0.5, 0.9)).brackets_edge
    assert not Law((0.1, 0.2), (1.5, 2.0)).brackets_edge

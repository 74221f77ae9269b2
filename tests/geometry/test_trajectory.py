"""When a training is measured."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.geometry.trajectory import moments

COUNTS = st.integers(1, 400)


@given(COUNTS, COUNTS)
def test_the_ends_are_measured_and_no_more_than_asked_for(steps: int, count: int) -> None:
    found = moments(steps, count)
    assert found[0] == 0 and found[-1] == steps
    assert list(found) == sorted(set(found))
    assert len(found) <= max(count + 1, 3)


@given(COUNTS)
def test_every_step_where_there_are_enough_moments(steps: int) -> None:
    assert moments(steps, steps + 1) == tuple(range(steps + 1))


@pytest.mark.parametrize(("steps", "count"), [(100, 12), (1000, 30), (80, 14)])
def test_early_moments_lie_geometrically_and_late_ones_evenly(steps: int, count: int) -> None:
    found = moments(steps, count)
    late = [step for step in found if step > 0.8 * steps]
    gaps = [after - before for before, after in pairwise(late)]
    assert len(late) == count // 3 and max(gaps) - min(gaps) <= 1
    early = [step for step in found if 8 <= step <= 0.8 * steps]
    ratios = [after / before for before, after in pairwise(early)]
    assert max(ratios) / min(ratios) < 1.25

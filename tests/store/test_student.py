"""The t quantile, against an independent implementation and closed forms."""

from __future__ import annotations

import math

import pytest
from scipy import special

from qbench.store.student import quantile, within


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 7, 10, 29, 100, 1001])
@pytest.mark.parametrize("level", [0.6, 0.975, 0.9995])
def test_the_quantile_is_that_of_scipy(freedom: int, level: float) -> None:
    assert quantile(level, freedom) == pytest.approx(special.stdtrit(freedom, level), rel=1e-9)
    assert within(quantile(level, freedom), freedom) == pytest.approx(2 * level - 1, abs=1e-12)


def test_one_and_two_degrees_have_closed_forms() -> None:
    assert quantile(0.9995, 1) == pytest.approx(math.tan(math.pi * 0.4995))
    share = 0.9995
    assert quantile(share, 2) == pytest.approx((2 * share - 1) * math.sqrt(1 / (2 * share * (1 - share))))


@pytest.mark.parametrize(("level", "freedom"), [(0.5, 3), (1.0, 3), (0.2, 3), (0.9, 0)])
def test_what_has_no_quantile_is_said(level: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no quantile of level"):
        quantile(level, freedom)

"""Numbers in tables of landscapes: three digits, and the bound of the theory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.landscapes import entry_bound
from qbench.geometry.landscape_theory import first_entry_bound
from qbench.report.landscape_sheet import digits


@given(
    st.floats(0.1, 2), st.floats(1e-3, 0.2), st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0, 2), st.floats(0.5, 3)
)
def test_the_bound_is_that_of_the_theory(
    offset: float, rate: float, rho: float, wall: float, error: float, gradient: float
) -> None:
    found = entry_bound(offset, rate, {"rho": rho, "wall": wall}, error, gradient)
    assert found == pytest.approx(first_entry_bound(offset, rate, rho, wall, error, gradient))


@given(st.floats(min_value=1e-12, max_value=1e9), st.sampled_from((1, -1)))
def test_three_digits(size: float, sign: int) -> None:
    text = digits(sign * size)
    assert float(text) == pytest.approx(sign * size, rel=0.00501)
    mantissa = text.lstrip("-").partition("e")[0].replace(".", "").lstrip("0")
    assert len(mantissa) <= 3 or float(text) == sign * size or size >= 1000

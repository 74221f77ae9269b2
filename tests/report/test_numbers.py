from __future__ import annotations

import math

import pytest

from qbench.claims.statistics import Interval
from qbench.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0284, ".028"),
        (-0.0284, "-.028"),
        (-0.0004, ".000"),
        (0.9994, ".999"),
        (0.9996, "1.00"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (-12.34, "-12.3"),
        (99.96, "100"),
        (12345.6, "12346"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_compact(value: float | None, text: str) -> None:
    assert numbers.compact(value) == text


def test_signs_and_intervals() -> None:
    assert numbers.signed(0.0284) == "+.028"
    assert numbers.signed(-0.0284) == "-.028"
    assert numbers.signed(-0.0001) == "+.000"
    assert numbers.spread(Interval(0.028, 0.021, 0.035)) == "[.021,.035]"
    assert numbers.spread(Interval(0.028)) == numbers.spread(None) == ""
    assert [numbers.share(value) for value in (0.763, -0.12, 1.0, 0.999, -3.5)] == [
        ".76",
        "-.12",
        "1.00",
        "1.00",
        "-3.50",
    ]


def test_cost() -> None:
    assert [numbers.seconds(value) for value in (None, 0.04, 9.94, 9.96, 340.4)] == ["-", "0.0", "9.9", "10", "340"]
    assert [numbers.mebibytes(value) for value in (None, 0, 600 << 20)] == ["-", "-", "600"]

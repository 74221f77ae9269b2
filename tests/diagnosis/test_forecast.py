"""What is foretold follows from stand-ins and corrections, and the answer is the cheapest thing that does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.regimes import Basin
from qbench.diagnosis.correction import METHODS, Correction
from qbench.diagnosis.depth import excess_at
from qbench.diagnosis.forecast import ANSWERS, answer, failure, forecast, ladder, ladders
from qbench.diagnosis.reading import Reading

Make = Callable[..., Reading]

PLAIN = {method: Correction(1.0, 0.0, 0.5 if method == "qat" else 0.0) for method in METHODS}
WIDE = {"rtn": Correction(1.0, 0.8), "second_order": Correction(1.0, 0.8), "qat": Correction(1.0, 0.8, 0.2)}
LADDER = {8: 1e-4, 6: 2e-3, 4: 0.04, 3: 0.4, 2: 5.0}

INSIDE, GREY, OUT = 0.01, 0.2, 3.0


@pytest.mark.parametrize(
    ("excesses", "told"),
    [
        ((INSIDE, INSIDE, INSIDE), "ptq"),
        ((INSIDE, OUT, OUT), "ptq"),
        ((GREY, INSIDE, INSIDE), "second_order"),
        ((OUT, INSIDE, OUT), "second_order"),
        ((GREY, GREY, INSIDE), "qat"),
        ((OUT, OUT, GREY), "qat"),
        ((OUT, GREY, OUT), "qat"),
        ((OUT, OUT, OUT), "hopeless"),
        ((0.05, OUT, OUT), "ptq"),
        ((OUT, 0.05, OUT), "second_order"),
        ((OUT, OUT, 0.5), "qat"),
    ],
)
def test_the_answer_is_the_cheapest_thing_that_does(excesses: tuple[float, float, float], told: str) -> None:
    assert answer(excesses, 0.05, 0.5) == told


def test_less_excess_never_asks_for_more() -> None:
    order = list(ANSWERS)
    for excesses in product((INSIDE, GREY, OUT), repeat=3):
        for at in range(3):
            better = list(excesses)
            better[at] /= 30
            assert order.index(answer(better, 0.05, 0.5)) <= order.index(answer(excesses, 0.05, 0.5))


def test_of_errors_alone_rounding_loses_what_its_stand_in_does(reading: Make) -> None:
    one = reading(3, 0.4, 0.1)
    assert forecast("rtn", one, PLAIN, 1000).excess == pytest.approx(0.4)
    assert forecast("second_order", one, PLAIN, 1000).excess == pytest.approx(0.1)
    # Training begins where rounding is and tends to where second-order rounding is.
    assert forecast("qat", one, PLAIN, 0).excess == pytest.approx(0.4)
    assert forecast("qat", one, PLAIN, 10**12).excess == pytest.approx(0.1, rel=1e-3)
    steps = [forecast("qat", one, PLAIN, steps).excess for steps in (0, 1, 10, 100, 1000)]
    assert steps == sorted(steps, reverse=True)


@given(matched=st.floats(0, 100), sd=st.floats(0, 2), more=st.floats(0, 2), method=st.sampled_from(METHODS))
def test_an_interval_holds_its_forecast_and_widens_with_chance(
    reading: Make, matched: float, sd: float, more: float, method: str
) -> None:
    one, other = (forecast(method, reading(3, matched, sd=each), WIDE, 100) for each in (sd, sd + more))
    assert 0 <= other.low <= one.low <= one.excess <= one.high <= other.high
    assert one.excess == other.excess
    assert one.excess == pytest.approx(excess_at(one.depth, 0.05))


def test_rows_are_by_falling_bits_and_say_where_a_method_fails(reading: Make) -> None:
    held = ladder([reading(bits, lost) for bits, lost in sorted(LADDER.items())], PLAIN, steps=0)
    assert [row.reading.bits for row in held.rows] == [8, 6, 4, 3, 2]
    assert [row.answer for row in held.rows] == ["ptq", "ptq", "ptq", "qat", "hopeless"]
    assert held.failing() == held.failing("qat") == 2
    assert held.readings == [row.reading for row in held.rows]
    assert [row.margin > 1 for row in held.rows] == [True, True, True, False, False]
    margins = [row.margin for row in held.rows]
    assert margins == sorted(margins, reverse=True)


@pytest.mark.parametrize(
    ("lost", "failing"),
    [({8: 1e-4, 4: 0.01, 2: 0.3}, None), ({8: 1e-4, 4: 0.01, 2: 0.6}, 2), ({8: 2.0, 4: 3.0, 2: 4.0}, 8)],
)
def test_the_failing_bitwidth_is_the_most_bits_at_which_it_fails(
    reading: Make, lost: dict[int, float], failing: int | None
) -> None:
    assert ladder([reading(bits, one) for bits, one in lost.items()], PLAIN).failing() == failing


def test_an_answer_is_sure_where_the_ends_of_all_intervals_agree(reading: Make) -> None:
    def rows(spread: float) -> list[bool]:
        corrections = {method: Correction(1.0, spread) for method in METHODS}
        held = ladder([reading(bits, lost) for bits, lost in LADDER.items()], corrections)
        return [row.sure for row in held.rows]

    assert rows(0.0) == [True] * 5
    assert rows(0.15) == [True, True, False, True, True]
    assert rows(0.3) == [True, True, False, False, True]
    assert rows(9.0) == [False] * 5


def test_failure_is_that_of_claims(reading: Make) -> None:
    for basin in (Basin(0.05), Basin(0.05, headroom=20.0), Basin(0.01, exact=True)):
        assert failure(basin) == basin.tau_f(0.0)


def test_ladders_are_kept_apart(reading: Make) -> None:
    all_readings = [
        reading(bits, lost, quantizer=quantizer, seed=seed, bn=bn)
        for bits, lost in LADDER.items()
        for quantizer, seed, bn in (
            ("mse", 0, "keep"),
            ("mse", 1, "keep"),
            ("nf", 0, "keep"),
            ("mse", 0, "recalibrate"),
        )
    ]
    held = ladders(all_readings, PLAIN)
    assert set(held) == {
        ("llama-1m", "mse", "keep", 0),
        ("llama-1m", "mse", "keep", 1),
        ("llama-1m", "nf", "keep", 0),
        ("llama-1m", "mse", "recalibrate", 0),
    }
    assert all(len(one.rows) == 5 for one in held.values())

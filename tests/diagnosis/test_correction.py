"""Corrections are found again where they were planted, whatever family has most cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.diagnosis.correction import COVERAGE, METHODS, Case, Correction, family_of, fit, inputs_of, with_widest
from qbench.diagnosis.reading import Reading

STEPS = (1, 10, 100, 1000)
DEPTHS = st.floats(0, 6)


def planted(slope: float, decay: float, families: Sequence[str] = ("llama", "resnet", "mlp")) -> list[Case]:
    """Return trainings that begin and tend to different depths, without noise."""
    truth = Correction(slope, 0.0, decay)
    starts = {family: (1.0 + at, 0.5 + 0.7 * at) for at, family in enumerate(families)}
    return [
        Case(family, start, end, truth.depth_of(start, end, steps), steps)
        for family, (start, end) in starts.items()
        for steps in STEPS
    ]


def roundings(offs: Sequence[float], family: str = "llama", sd: float = 0.0) -> list[Case]:
    return [Case(family, 2.0, 2.0, 2.0 + off, sd=sd) for off in offs]


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.77])
def test_what_is_trained_as_second_order_rounding_says_is_found_exactly(decay: float) -> None:
    found = fit({"qat": planted(1.0, decay)})["qat"]
    assert (found.slope, found.decay) == pytest.approx((1.0, decay))
    assert found.spread == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("slope", [0.2, 0.6])
def test_another_slope_is_drawn_to_one_by_less_the_more_families_there_are(slope: float) -> None:
    off = []
    for count in (2, 8, 64):
        found = fit({"qat": planted(slope, 0.5, [f"family{'abcdefgh'[at % 8]}{at}" for at in range(count)])})["qat"]
        assert slope < found.slope < 1
        off.append(found.slope - slope)
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.1


def test_a_slope_is_from_nothing_to_one() -> None:
    cases = planted(1.0, 0.5)
    deeper = [Case(case.family, case.start, case.end, 3 * case.measured, case.steps) for case in cases]
    assert fit({"qat": deeper})["qat"].slope <= 1
    none = [Case(case.family, case.start, case.end, 0.0, case.steps) for case in cases]
    assert 0 <= fit({"qat": none})["qat"].slope < 0.5


def test_of_roundings_nothing_is_fitted_but_how_far_they_are_off() -> None:
    found = fit({"rtn": roundings([0.1, -0.2, 0.3]), "second_order": roundings([0.0])})
    assert (found["rtn"].slope, found["second_order"].slope) == (1.0, 1.0)
    assert found["rtn"].spread == pytest.approx(0.3)
    assert found["second_order"].spread == 0.0
    assert "qat" not in found
    assert fit({}) == {}


def test_a_family_counts_alike_however_many_cases_it_has() -> None:
    cases = [
        Case(case.family, case.start, case.end, case.measured * (1.3 if case.family == "mlp" else 0.8), case.steps)
        for case in planted(0.8, 0.4)
    ]
    double = [case for case in cases for _ in range(2 if case.family == "mlp" else 1)]
    once, twice = fit({"qat": cases, "rtn": cases}), fit({"qat": double, "rtn": double})
    for method in once:
        assert vars(twice[method]) == pytest.approx(vars(once[method]))


@given(st.lists(st.tuples(st.sampled_from(["llama", "resnet", "mlp"]), st.floats(-2, 2)), min_size=1, max_size=30))
def test_the_spread_covers_nine_tenths_by_weight_and_no_less_would(offs: list[tuple[str, float]]) -> None:
    cases = [case for family, off in offs for case in roundings([off], family)]
    spread = fit({"rtn": cases})["rtn"].spread
    counts = {family: sum(case.family == family for case in cases) for family, _ in offs}

    def covered(within: Callable[[float], bool]) -> float:
        return math.fsum(1 / counts[case.family] for case in cases if within(abs(case.measured - case.end)))

    total = len(counts)
    assert covered(lambda off: off <= spread + 1e-12) >= COVERAGE * total - 1e-9
    assert covered(lambda off: off < spread - 1e-12) < COVERAGE * total


def test_what_chance_explains_widens_no_spread() -> None:
    assert fit({"rtn": roundings([0.3, -0.3], sd=0.3)})["rtn"].spread == 0.0
    small, large = (fit({"rtn": roundings([1.0], sd=sd)})["rtn"] for sd in (0.1, 0.4))
    assert 0 < large.spread < small.spread < 1.0
    # With chance put back the interval ends at what was measured.
    assert large.interval(2.0, 0.4)[1] == pytest.approx(3.0)


@given(DEPTHS, st.floats(0, 3), st.floats(0, 3), st.floats(0, 3))
def test_an_interval_widens_with_chance_and_is_not_below_nothing(
    forecast: float, spread: float, sd: float, more: float
) -> None:
    one, other = (Correction(1.0, spread).interval(forecast, each) for each in (sd, sd + more))
    assert 0 <= other[0] <= one[0] <= forecast <= one[1] <= other[1]


@given(DEPTHS, DEPTHS, st.floats(0, 1), st.floats(0.01, 1.5), st.integers(0, 10**6))
def test_training_is_between_where_it_begins_and_what_it_tends_to(
    start: float, end: float, slope: float, decay: float, steps: int
) -> None:
    deep = Correction(slope, 0.0, decay).depth_of(start, end, steps)
    assert min(start, slope * end) - 1e-9 <= deep <= max(start, slope * end) + 1e-9
    assert Correction(slope, 0.0, decay).depth_of(start, end, 0) == pytest.approx(start)


def test_each_method_has_stand_ins_of_its_own(reading: Callable[..., Reading]) -> None:
    one = reading(3, 0.4, 0.1)
    matched, second_order = one.matched.mean, one.second_order.mean
    assert {method: inputs_of(method, one) for method in METHODS} == {
        "rtn": (matched, matched),
        "second_order": (second_order, second_order),
        "qat": (matched, second_order),
    }


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("llama-1m", "llama"),
        ("resnet8nobn-mnist", "resnet"),
        ("SmolLM2-135M[text=wikitext2]", "smollm"),
        ("org/Llama-2-7b", "llama"),
        ("vit-mnist", "vit"),
        ("llama-1m[lm_eval_folder=data/tasks]", "llama"),
        ("7b-model", "7b-model"),
    ],
)
def test_a_family_is_what_names_begin_with(model: str, family: str) -> None:
    assert family_of(model) == family


def test_what_is_shipped_has_the_widest_interval_of_those_that_were_judged() -> None:
    fitted = {"rtn": Correction(1.0, 0.2), "qat": Correction(0.8, 0.5, 0.6)}
    left_out = [{"rtn": Correction(1.0, 0.7)}, {"rtn": Correction(1.0, 0.1), "qat": Correction(0.1, 0.4, 0.9)}]
    assert with_widest(fitted, left_out) == {"rtn": Correction(1.0, 0.7), "qat": Correction(0.8, 0.5, 0.6)}

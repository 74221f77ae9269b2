"""Each family is judged by what the others say, and thresholds are set where they err least."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.regimes import Basin
from qbench.diagnosis.cases import cases
from qbench.diagnosis.correction import Correction
from qbench.diagnosis.depth import depth
from qbench.diagnosis.forecast import Forecast
from qbench.diagnosis.judged import Both, Pair, Rung, judge, quadratics, sqnr_threshold
from qbench.diagnosis.outcome import Measured, Outcome, Place
from qbench.diagnosis.reading import Reading
from qbench.store.record import Record

Found = dict[tuple[Place, int], Outcome]

BASIN = Basin(0.05, headroom=4.0)
LOST = {8: 1e-3, 4: 0.04, 3: 0.4, 2: 4.0}


class Models:
    """Readings of models with what came out, planted one by one."""

    def __init__(self, make: Callable[..., Reading]) -> None:
        self._make = make
        self.readings: list[Reading] = []
        self.found: Found = {}

    def add(self, model: str, factor: float = 1.0, seeds: int = 1, qat: float = 0.5) -> Models:
        """Plant a model that loses `factor` times what its stand-ins do, and `qat` of that when it is trained."""
        for bits, lost in LOST.items():
            for seed in range(seeds):
                one = self._make(bits, lost, 0.7 * lost, model=model, seed=seed)
                self.readings.append(one)
                ways = {
                    "rtn": Measured("rtn", factor * lost, 0.001, 1.0),
                    "gptq": Measured("gptq", 0.7 * factor * lost, 0.001, 1.0),
                    "qat": Measured("ste_qat", qat * lost, 0.001, 1.0, ((10, lost), (80, qat * lost))),
                }
                self.found[one.place, bits] = Outcome(BASIN, ways, 30.0)
        return self

    def pairs(self) -> dict[str, Pair]:
        return {pair.model: pair for pair in judge(self.readings, self.found, {})}


@pytest.fixture
def models(reading: Callable[..., Reading]) -> Callable[[], Models]:
    return lambda: Models(reading)


def corrections(pair: Pair) -> Mapping[str, Correction]:
    return pair.left_out


def test_a_family_is_left_out_of_its_own_corrections(models: Callable[[], Models]) -> None:
    plain = models().add("llama-1m").add("resnet8").add("mlp").pairs()
    absurd = models().add("llama-1m").add("resnet8").add("mlp", 50.0, qat=40.0).pairs()
    assert corrections(plain["mlp"]) == corrections(absurd["mlp"])
    for other in ("llama-1m", "resnet8"):
        assert corrections(plain[other]) != corrections(absurd[other])
        assert corrections(absurd[other])["rtn"].spread > corrections(plain[other])["rtn"].spread


def test_models_of_one_family_are_left_out_together(models: Callable[[], Models]) -> None:
    plain = models().add("llama-1m").add("llama-3m").add("mlp").pairs()
    absurd = models().add("llama-1m").add("llama-3m", 50.0).add("mlp").pairs()
    assert corrections(plain["llama-1m"]) == corrections(absurd["llama-1m"]) == corrections(absurd["llama-3m"])
    assert models().add("llama-1m").add("llama-3m").pairs() == {}


def test_where_stand_ins_are_right_so_are_forecasts(models: Callable[[], Models]) -> None:
    for pair in models().add("llama-1m").add("resnet8").pairs().values():
        assert [rung.bits for rung in pair.rungs] == [8, 4, 3, 2]
        for rung, lost in zip(pair.rungs, LOST.values(), strict=True):
            both = rung.methods["rtn"]
            assert both.foretold.excess == pytest.approx(lost)
            assert both.excess == pytest.approx(lost)
            assert rung.fails() == rung.foretold_to_fail() == (lost > 0.5)
        assert pair.failing(lambda rung: rung.fails()) == pair.failing(lambda rung: rung.foretold_to_fail()) == 2


def test_answers_are_those_of_the_excesses(models: Callable[[], Models]) -> None:
    pair = models().add("llama-1m").add("resnet8").pairs()["llama-1m"]
    measured = [answers[1] for rung in pair.rungs if (answers := rung.answers()) is not None]
    assert measured == ["ptq", "ptq", "qat", "hopeless"]
    held = models().add("llama-1m").add("resnet8")
    for outcome in held.found.values():
        del outcome.methods["qat"]
    assert [rung.answers() for rung in held.pairs()["llama-1m"].rungs] == [None] * 4
    assert held.pairs()["llama-1m"].having("qat") == []
    assert held.pairs()["llama-1m"].failing(lambda _: True, "qat") is None


def test_means_are_over_seeds(models: Callable[[], Models]) -> None:
    held = models().add("llama-1m", seeds=3).add("resnet8")
    (place,) = {place for place, _ in held.found if place[0] == "llama-1m" and place[3] == 2}
    held.found[place, 3].methods["rtn"] = Measured("rtn", 1.0, 0.004, 1.0)
    rung = held.pairs()["llama-1m"].rungs[2]
    assert rung.seeds == 3
    assert rung.methods["rtn"].excess == pytest.approx((0.4 + 0.4 + 1.0) / 3)
    assert rung.methods["rtn"].se == pytest.approx((0.001 + 0.001 + 0.004) / 3)
    assert (rung.seconds, rung.of_cells) == (3.0, 90.0)


def test_what_has_no_outcome_is_not_judged(models: Callable[[], Models]) -> None:
    held = models().add("llama-1m").add("resnet8")
    held.found = {key: one for key, one in held.found.items() if key != (("llama-1m", "mse", "keep", 0), 3)}
    assert [rung.bits for rung in held.pairs()["llama-1m"].rungs] == [8, 4, 2]


def test_training_counts_where_rounding_leaves_the_basin(models: Callable[[], Models]) -> None:
    held = models().add("llama-1m")
    found = cases(held.readings, held.found)
    assert len(found["rtn"]) == len(found["second_order"]) == 4
    # 3 and 2 bits, each at the end of training and on the way.
    assert [case.steps for case in found["qat"]] == [10, 80, 10, 80]
    assert {case.family for case in found["qat"]} == {"llama"}
    assert [case.measured for case in found["qat"]] == pytest.approx(
        [depth(lost, 0.05) for lost in (0.4, 0.2, 4.0, 2.0)]
    )
    assert cases(held.readings, {}) == {"rtn": [], "second_order": [], "qat": []}


def rung(bits: int, sqnr: float, fails: bool, foretold: float = 0.0, quadratic: float | None = None) -> Rung:
    both = Both(Forecast(depth(foretold, 0.05), foretold, 0.0, 2 * foretold), 1.0 if fails else 0.01, 0.0)
    return Rung(bits, 1, BASIN, sqnr, {"rtn": both}, quadratic, 1.0, 10.0)


def pair(family: str, *rungs: Rung) -> Pair:
    return Pair(f"{family}-1", "mse", "keep", family, rungs, {})


@pytest.mark.parametrize(
    ("failing", "found"), [((8, 4, 3, 2), 8), ((4, 2), 4), ((2,), 2), ((), 1)]
)  # fmt: skip
def test_where_nothing_fails_it_is_one_bit_below(failing: tuple[int, ...], found: int) -> None:
    held = pair("llama", *(rung(bits, 6.0 * bits, bits in failing) for bits in (8, 4, 3, 2)))
    assert held.failing(lambda one: one.fails()) == found


@given(
    st.floats(5, 40),
    st.lists(st.tuples(st.sampled_from(["llama", "resnet"]), st.floats(0, 45)), min_size=1, max_size=12),
)
def test_a_threshold_parts_what_can_be_parted(edge: float, places: list[tuple[str, float]]) -> None:
    pairs = [pair(family, rung(3, sqnr, sqnr < edge)) for family, sqnr in places]
    found = sqnr_threshold(pairs)
    assert all((sqnr < found) == (sqnr < edge) for _, sqnr in places)


def test_of_what_cannot_be_parted_families_count_alike() -> None:
    # One family says that 20 dB fail, the other that they do not, however often.
    one, other = pair("llama", rung(3, 20.0, True), rung(4, 30.0, False)), pair("resnet", rung(3, 20.0, False))
    assert sqnr_threshold([one, other]) == sqnr_threshold([one, *[other] * 9]) < 20.0
    assert sqnr_threshold([]) == 0.0


def test_the_quadratic_is_linear_and_hessian_part_of_rounding(record: Callable[..., Record]) -> None:
    metrics = {"rtn/linear": 0.1, "rtn/hessian": 0.5}
    sound = record("curvature", 3, metrics=metrics)
    assert quadratics([sound]) == {("llama-1m", "mse", 3, 0): pytest.approx(0.6)}
    assert quadratics([record("curvature", 3, metrics={"rtn/linear": 0.1})]) == {}
    assert quadratics([record("curvature", 3, metrics=metrics, status="failed")]) == {}
    assert quadratics([record("rtn", 3)]) == {}
    assert rung(3, 20.0, False, quadratic=0.6).quadratic_fails
    assert not rung(3, 20.0, False, quadratic=0.4).quadratic_fails
    assert not rung(3, 20.0, False).quadratic_fails


@pytest.mark.parametrize(("excess", "covered"), [(0.3, True), (0.2, True), (0.7, True), (0.19, False), (0.71, False)])
def test_an_interval_covers_what_lies_in_it(excess: float, covered: bool) -> None:
    assert Both(Forecast(1.0, 0.4, 0.2, 0.7), excess, 0.0).covered is covered


def test_what_was_gained_counts_as_nothing_lost() -> None:
    assert Both(Forecast(0.1, 0.01, 0.0, 0.02), -0.01, 0.0).covered

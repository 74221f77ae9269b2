"""C1, C2 and C14, on ladders with a planted wall, bowl or width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from qbench.claims.subject import subjects

MakeBench = Callable[..., Any]
Curve = Callable[[float], float]

STEPS = [0.01 * 1.25**rung for rung in range(30)]
TOP = 4.0


def bowl(step: float) -> float:
    """Return D that rises as the square of the step, without an end."""
    return 10.0 * step**2


def wall(at: float, power: float = 8.0) -> Curve:
    """Return D that is .05 at a step, rises as its eighth power there, and saturates."""
    return lambda step: TOP * (1 - math.exp(-0.05 / TOP * (step / at) ** power))


def ladder(bench: Any, rtn: Curve, noise: Curve | None = None, scale: float = 1.0) -> Any:
    """Plant a ladder whose grid has the step size `scale`/100."""
    steps = [scale * step for step in STEPS]
    traces = {
        "factor": [step / STEPS[0] for step in STEPS],
        "step": steps,
        "rtn/excess": [rtn(step) for step in steps],
        "rtn/se": [0.001] * len(steps),
        "noise/excess": [(noise or rtn)(step) for step in steps],
        "noise/se": [0.001] * len(steps),
        "noise/spread": [0.001] * len(steps),
    }
    return bench.probe(4, "ladder", {}, traces)


def falling(bench: Any, *excesses: float, bits: tuple[int, ...] = (8, 4, 3, 2)) -> Any:
    for width, excess in zip(bits, excesses, strict=True):
        bench.method(width, "rtn", excess)
    return bench


SHARP = (0.0, 0.01, 0.4, 2.0)

C1 = {
    "supported": lambda b: ladder(falling(b, *SHARP), wall(0.1)),
    "refuted": lambda b: ladder(falling(b, *SHARP), bowl),
    # Inside at every bitwidth, with a wall that only the ladder reaches.
    "inconclusive": lambda b: ladder(falling(b, 0.0, 0.01, 0.02, 0.03), wall(0.1)),
    "not judged": lambda b: falling(b, *SHARP),
}
C2 = {
    "supported": lambda b: ladder(b, wall(0.1), wall(0.12)),
    "refuted": lambda b: ladder(b, wall(0.1), wall(0.25)),
    "inconclusive": lambda b: ladder(b, wall(0.1), wall(0.18)),
    "not applicable": lambda b: ladder(b, lambda _: 0.01),
    "not judged": lambda b: ladder(b, lambda step: 1 + step),
}


@pytest.mark.parametrize("verdict", C1)
def test_c1(bench: MakeBench, verdict: str) -> None:
    found = C1[verdict](bench()).verdict("C1")
    assert found.verdict == verdict, found.why


def test_c1_is_refuted_by_an_excess_that_falls(bench: MakeBench) -> None:
    found = ladder(falling(bench(), 0.0, 1.0, 0.5, 2.0), wall(0.1)).verdict("C1")
    assert found.verdict == "refuted" and "largest fall inf SE" in found.why


def test_c1_tells_slope_and_rise(bench: MakeBench) -> None:
    steep = ladder(falling(bench(), *SHARP), wall(0.1)).verdict("C1").numbers
    # 1 - exp(-x^8) has 10 % at x^8 = -ln .9 and 90 % at -ln .1; rungs 1.25 apart find that within a tenth.
    assert steep["rise_factor"].mean == pytest.approx((math.log(0.1) / math.log(0.9)) ** (1 / 8), rel=0.1)
    assert ladder(falling(bench(), *SHARP), bowl).verdict("C1").numbers["slope"].mean == pytest.approx(2)


def test_c1_wants_the_fine_and_the_coarse_grid(bench: MakeBench) -> None:
    found = ladder(falling(bench(), 0.0, 0.01, 0.4, 2.0, bits=(6, 5, 4, 3)), wall(0.1)).verdict("C1")
    assert found.verdict == "not judged" and "8 to 2" in found.lacks[0]


@pytest.mark.parametrize("verdict", C2)
def test_c2(bench: MakeBench, verdict: str) -> None:
    found = C2[verdict](bench()).verdict("C2")
    assert found.verdict == verdict, found.why


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.4])
def test_c2_measures_the_ratio_of_the_widths(bench: MakeBench, ratio: float) -> None:
    numbers = ladder(bench(), wall(0.1), wall(0.1 * ratio)).verdict("C2").numbers
    assert numbers["ratio"].mean == pytest.approx(ratio, rel=0.01)


def test_c2_is_refuted_from_one_side(bench: MakeBench) -> None:
    found = ladder(bench(), wall(0.1), lambda _: 0.01).verdict("C2")
    assert found.verdict == "refuted" and "noise not up to" in found.why
    late = ladder(bench(), wall(0.95 * STEPS[-1]), lambda _: 0.01).verdict("C2")
    assert late.verdict == "not judged" and "longer ladder" in late.lacks[0]


WIDTHS = (0.05, 0.08, 0.12, 0.2, 0.3, 0.4)


def checkpoints(bench: MakeBench, noise: tuple[float, ...], scales: tuple[float, ...] = (1.0,) * 6) -> list[Any]:
    """Plant six checkpoints, of two phases and three seeds, whose rounding fails later and later."""
    models = [bench("m"), bench("m[phase=stable]")]
    for place, (rtn, of_noise, scale) in enumerate(zip(WIDTHS, noise, scales, strict=True)):
        ladder(models[place % 2].only(place // 2), wall(rtn), wall(of_noise), scale)
    return models


C14 = {
    "supported": WIDTHS,
    "refuted": WIDTHS[::-1],
    "inconclusive": (0.08, 0.3, 0.05, 0.4, 0.12, 0.2),
}


@pytest.mark.parametrize("verdict", C14)
def test_c14(bench: MakeBench, verdict: str) -> None:
    first, other = checkpoints(bench, C14[verdict])
    found = first.verdict("C14", other)
    assert (found.verdict, found.model) == (verdict, "m"), found.why


def test_c14_wants_five_checkpoints(bench: MakeBench) -> None:
    first, _ = checkpoints(bench, WIDTHS)
    found = first.verdict("C14")
    assert found.verdict == "not judged" and "has 3" in found.lacks[0]


def test_c14_is_not_supported_by_weights_of_other_scales(bench: MakeBench) -> None:
    """Both exits grow with the weights; in steps of the grid they are apart."""
    scales = (1.0, 1.4, 2.0, 3.0, 4.5, 7.0)
    rtn = [0.3 * scale for scale in scales]
    noise = [0.1 * scale * (1.1 - 0.02 * place) for place, scale in enumerate(scales)]
    models = [bench("m"), bench("m[phase=stable]")]
    for place, scale in enumerate(scales):
        exit_ = rtn[place] * (1 + 0.01 * place)
        ladder(models[place % 2].only(place // 2), wall(exit_ / 5), wall(noise[place] / 2), scale)
    found = models[0].verdict("C14", models[1])
    assert found.numbers["rank_correlation"].mean == pytest.approx(1)
    assert found.numbers["rank_correlation_in_steps"].mean == pytest.approx(-1)
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(("power", "verdict"), [(2.2, "refuted"), (2.4, "supported")])
def test_c1_turns_at_the_slope_of_a_bowl(bench: MakeBench, power: float, verdict: str) -> None:
    found = ladder(falling(bench(), *SHARP), lambda step: 10 * step**power).verdict("C1")
    assert found.numbers["slope"].mean == pytest.approx(power)
    assert found.verdict == verdict, found.why


@pytest.mark.parametrize(("bend", "verdict"), [(0.4, "refuted"), (1.2, "supported")])
def test_c1_is_refuted_by_one_slope_only(bench: MakeBench, bend: float, verdict: str) -> None:
    """Two slopes about 2, ``bend`` to each side, are no power law when they are far enough apart."""
    found = ladder(falling(bench(), *SHARP), lambda step: 0.3 * (step / 0.2) ** (2 + bend * (1 if step > 0.2 else -1)))
    judged = found.verdict("C1")
    assert judged.verdict == verdict, judged.why


@pytest.mark.parametrize(("power", "verdict"), [(3.4, "supported"), (2.6, "inconclusive")])
def test_c1_turns_at_a_rise_within_a_factor_three(bench: MakeBench, power: float, verdict: str) -> None:
    found = ladder(falling(bench(), *SHARP), wall(0.03, power)).verdict("C1")
    assert (found.numbers["rise_factor"].mean <= 3) is (verdict == "supported")
    assert found.verdict == verdict, found.why


@pytest.mark.parametrize(("fall", "verdict"), [(0.5, "supported"), (2.0, "inconclusive"), (4.0, "refuted")])
def test_c1_measures_a_fall_in_standard_errors(bench: MakeBench, fall: float, verdict: str) -> None:
    planted = ladder(falling(bench(), *SHARP), wall(0.1))
    noise = (0.2, -0.2, 0.2, -0.15)
    for bits, mean in ((4, 0.5), (3, 0.5)):
        planted.method(bits, "rtn", [mean + one for one in noise])
    assert planted.verdict("C1").numbers["fall_in_se"].mean == 0
    (subject,) = subjects(planted.records.values())
    se = subject.rounding(0, 4).se * 2**0.5
    planted.method(3, "rtn", [0.5 - fall * se + one for one in noise])
    found = planted.verdict("C1")
    assert found.numbers["fall_in_se"].mean == pytest.approx(fall, rel=0.05)
    assert found.verdict == verdict, found.why


def test_c1_fits_no_slope_past_half_of_the_range(bench: MakeBench) -> None:
    """A bowl that saturates is a bowl below: 1 - exp(-x^2) has a mean slope between 1.7 and 2 up to a half."""
    found = ladder(falling(bench(), *SHARP), wall(0.03, 2.0)).verdict("C1")
    assert found.verdict == "refuted" and 1.75 < found.numbers["slope"].mean < 2


def test_c2_takes_the_ladder_from_the_most_bits_on_which_both_begin_inside_and_leave(bench: MakeBench) -> None:
    planted = ladder(bench(), wall(0.1), wall(0.11))
    (first,) = (one for one in planted.records.values() if one.axes["seed"] == 0 and one.is_probe)
    coarse = {name: curve[12:] for name, curve in first.traces.items()}
    coarse["noise/excess"] = [9.0, *coarse["noise/excess"][1:]]  # outside at its first rung
    planted.probe(3, "ladder", {}, coarse)
    judged = planted.verdict("C2")
    assert judged.verdict == "supported" and judged.bits == (4,)


def test_c2_has_one_level_for_both_curves_and_needs_data_that_resolve_it(bench: MakeBench) -> None:
    planted = ladder(bench(), wall(0.1), wall(0.11))
    assert "D = 0.05" in planted.verdict("C2").why
    for record in planted.records.values():
        if record.is_probe:
            record.traces["noise/se"] = [0.03] * len(STEPS)
    assert "more evaluation data" in " ".join(planted.verdict("C2").lacks)

"""Figures of a diagnosis show every forecast and what is known of it, whatever the numbers are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair
import pytest

from qbench.claims.regimes import Basin
from qbench.diagnosis.correction import Correction
from qbench.diagnosis.depth import depth
from qbench.diagnosis.forecast import Forecast, Ladder, failure, ladder
from qbench.diagnosis.law import Law
from qbench.diagnosis.outcome import Measured, Outcome, Place
from qbench.diagnosis.reading import Depths, Reading
from qbench.report.figures.diagnosis import diagnosis_figures, write_diagnosis
from qbench.report.figures.drawing import claim_of, image, specification
from qbench.report.figures.figure import Figure, Panel
from qbench.report.figures.theme import DARK, styles

BASIN = Basin(0.05, headroom=4.0)
PLACE: Place = ("llama-1m", "mse[per_channel]", "keep", 0)
CORRECTIONS = {
    "rtn": Correction(1.0, 0.2),
    "second_order": Correction(1.1, 0.3),
    "qat": Correction(0.9, 0.4, 0.2),
}
MATCHED = {8: 2e-4, 6: 2e-3, 5: 9e-3, 4: 0.045, 3: 0.4, 2: 5.0}


def reading(bits: int, matched: float, place: Place = PLACE, basin: Basin = BASIN) -> Reading:
    return Reading(
        model=place[0],
        quantizer=place[1],
        bn=place[2],
        bits=bits,
        seed=place[3],
        basin=basin,
        relative_error=1.1 * 2.0**-bits,
        shrinkage=0.0,
        matched=Depths(depth(matched, basin.tolerance), 0.02 + 0.05 * depth(matched, basin.tolerance)),
        second_order=Depths(depth(0.6 * matched, basin.tolerance), 0.02),
        layers={"0": (4.0, 0.1)},
        tokens=1000.0,
        passes=5.0,
        seconds=1.0,
    )


def rungs(lost: Mapping[int, float] = MATCHED, place: Place = PLACE, basin: Basin = BASIN) -> Ladder:
    return ladder([reading(bits, matched, place, basin) for bits, matched in lost.items()], CORRECTIONS)


def outcome(rtn: float, **others: float) -> Outcome:
    """Return what rounding gave, and others by the names that outcomes have."""
    return Outcome(BASIN, {name: Measured(name, lost, 0.01, 1.0) for name, lost in {"rtn": rtn, **others}.items()})


MEASURED = {
    (PLACE, 8): outcome(-1e-4),
    (PLACE, 4): outcome(0.06, gptq=0.03, adaround=0.02, qat=0.04),
    (PLACE, 3): outcome(0.5, gptq=0.25, qat=0.12),
    (PLACE, 2): outcome(4.1, gptq=3.9),
}


def only(figures: Sequence[Figure]) -> Figure:
    (figure,) = figures
    return figure


def drawn(lad: Ladder, measured: Mapping[tuple[Place, int], Outcome] | None = None) -> Figure:
    return only(diagnosis_figures({PLACE: lad}, measured or {}))


def frames(figure: Figure) -> tuple[Panel, Panel]:
    left, right = figure.panels
    assert isinstance(left, Panel)
    assert isinstance(right, Panel)
    return left, right


def numbers_in(part: Any) -> Iterator[float]:
    if isinstance(part, float | int) and not isinstance(part, bool):
        yield part
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
        yield from numbers_in(one)


def checked(figure: Figure) -> None:
    """Assert that a figure can be drawn, in frames with ends."""
    spec = specification(figure)
    altair.Chart.from_dict(spec)  # raises where the schema is not met
    json.dumps(spec, allow_nan=False)
    assert image(spec, "svg").startswith(b"<svg")
    for panel in frames(figure):
        assert not panel.empty
        for axis in (panel.x, panel.y):
            ends = [end for end in (axis.low, axis.high, *axis.ticks) if end is not None]
            assert all(math.isfinite(end) for end in ends)
            assert len(axis.ticks) < 20
            assert axis.low is None or axis.high is None or axis.low < axis.high
            assert axis.scale != "log" or axis.low is None or axis.low > 0


@pytest.fixture(scope="module")
def full() -> Figure:
    return drawn(rungs(), MEASURED)


def test_every_forecast_is_drawn_with_its_interval_around_it(full: Figure) -> None:
    left, _ = frames(full)
    found = {
        (trend.series, int(one.x)): (one.y, one.low, one.high)
        for trend in left.trends
        if trend.series.endswith("foretold")
        for one in trend.estimates
    }
    assert found == {
        (f"{method} foretold", row.reading.bits): (one.excess, one.low, one.high)
        for row in rungs().rows
        for method, one in row.forecasts.items()
    }
    assert len(found) == 3 * 6
    for excess, low, high in found.values():
        assert low is not None
        assert high is not None
        assert low <= excess <= high


def test_what_was_measured_is_drawn_where_it_is_known_alone(full: Figure) -> None:
    left, _ = frames(full)
    found = {
        (trend.series, int(one.x)): one.y
        for trend in left.trends
        if trend.series.endswith("measured")
        for one in trend.estimates
    }
    assert found == {
        ("rtn measured", 8): -1e-4,
        ("rtn measured", 4): 0.06,
        ("rtn measured", 3): 0.5,
        ("rtn measured", 2): 4.1,
        ("second_order measured", 4): 0.02,  # the better one
        ("second_order measured", 3): 0.25,
        ("second_order measured", 2): 3.9,
        ("qat measured", 4): 0.04,
        ("qat measured", 3): 0.12,
    }
    assert any("Filled: what was measured." in note for note in full.notes)


def test_of_other_places_and_bits_nothing_is_drawn() -> None:
    other: Place = ("llama-1m", "absmax", "keep", 0)
    figure = drawn(rungs(), {(other, 4): outcome(0.1), (PLACE, 7): outcome(0.1)})
    assert not any("measured" in name for name in frames(figure)[0].series)
    assert not any("measured" in note for note in figure.notes)


def test_bits_fall_to_the_right_and_thresholds_are_those_of_the_basin(full: Figure) -> None:
    left, _ = frames(full)
    assert left.x.falling
    assert left.x.ticks == (8.0, 6.0, 5.0, 4.0, 3.0, 2.0)
    assert {level.name: level.value for level in left.levels} == {"τ": BASIN.tau(0.0), "τ_f": failure(BASIN)}


def test_the_law_runs_through_every_bitwidth_and_meets_tau_at_the_radius(full: Figure) -> None:
    _, right = frames(full)
    law = rungs().law
    points = {trend.label: trend.estimates[0] for trend in right.trends}
    assert {int(label): one.x for label, one in points.items()} == {bits: 1.1 * 2.0**-bits for bits in MATCHED}
    (line,) = right.guides
    through = dict(zip(line.x, line.y, strict=True))
    for bits, lost in MATCHED.items():
        assert points[str(bits)].y == pytest.approx(lost)
        assert through[1.1 * 2.0**-bits] == pytest.approx(lost, rel=1e-6)
    assert list(line.x) == sorted(line.x)
    (radius,) = [level.value for level in right.levels if level.axis == "x"]
    assert radius == law.basin_radius
    assert law.at(radius) * BASIN.tolerance == pytest.approx(BASIN.tau(0.0))


def test_the_law_ends_within_its_frame(full: Figure) -> None:
    for figure in (full, drawn(rungs({4: 1e-3, 3: 300.0, 2: 1e6}))):
        _, right = frames(figure)
        (line,) = right.guides
        assert right.y.high is not None
        assert max(line.y) <= right.y.high * (1 + 1e-9)
        assert not right.x.cuts(line.x[-1] * (1 - 1e-9))


def test_series_can_be_told_apart_without_colour(full: Figure) -> None:
    looks = styles(name for panel in full.panels for name in panel.series)
    assert len({(look.shape, look.hollow) for look in looks.values()}) == len(looks)
    for method in ("rtn", "second_order", "qat"):
        foretold, given = looks[f"{method} foretold"], looks[f"{method} measured"]
        assert foretold.colour == given.colour
        assert foretold.shape != given.shape
    assert {look.colour for look in looks.values()} <= DARK.keys()


def test_what_to_do_is_said_in_words() -> None:
    lad = rungs()
    answers = drawn(lad).notes[0]
    for row in lad.rows:
        assert f"{row.reading.bits}{'' if row.sure else '?'}" in answers
    assert answers.startswith("Bits and what they ask for: PTQ is enough at 8, 6")


def test_intervals_are_not_called_those_of_95_percent(full: Figure) -> None:
    assert any("90 % intervals" in note for note in full.notes)
    assert "95 %" not in json.dumps(specification(full))


def test_a_figure_can_be_drawn_and_is_no_claim(full: Figure) -> None:
    checked(full)
    assert claim_of(full) is None


@pytest.mark.parametrize("lost", [1e-4, 0.05, 3.0])
def test_a_ladder_of_one_bitwidth_has_a_figure(lost: float) -> None:
    figure = drawn(rungs({4: lost}), {(PLACE, 4): outcome(0.1)})
    checked(figure)
    left, right = frames(figure)
    assert [one.x for trend in left.trends for one in trend.estimates] == [4.0] * 4
    assert [trend.label for trend in right.trends] == ["4"]


def test_an_infinite_radius_has_no_line_and_is_said() -> None:
    flat = replace(rungs(), law=Law((0.1, 0.2), (0.3, 0.3)))
    assert math.isinf(flat.law.basin_radius)
    figure = drawn(flat)
    checked(figure)
    assert not [level for level in frames(figure)[1].levels if level.axis == "x"]
    assert any("never reaches τ" in note for note in figure.notes)


def test_a_radius_far_from_all_that_was_measured_is_said_and_not_drawn() -> None:
    figure = drawn(rungs({8: 1e-6, 6: 1.6e-5}))
    checked(figure)
    assert not [level for level in frames(figure)[1].levels if level.axis == "x"]
    assert any("beyond the frame" in note for note in figure.notes)


@pytest.mark.parametrize(
    "lost",
    [
        {8: 0.0, 4: 1e-6},
        {8: 0.0, 4: 0.02, 2: 3.0},
        {8: 1e-12, 2: 1e6},
        {4: 1e5, 3: 1e100, 2: 1e200},
        {4: 2.0, 3: 0.5, 2: 0.1},
    ],
    ids=["next to nothing", "nothing at 8", "both", "huge", "falling"],
)
def test_no_excess_breaks_the_axes(lost: Mapping[int, float]) -> None:
    figure = drawn(rungs(lost), {(PLACE, bits): outcome(excess, gptq=-1.0) for bits, excess in lost.items()})
    checked(figure)
    # Every bitwidth is named, those beyond the frame at its edge.
    _, right = frames(figure)
    assert right.y.high is not None
    assert all(y <= right.y.high * (1 + 1e-9) for line in right.guides for y in line.y)
    assert [trend.label for trend in right.trends] == [str(bits) for bits in lost]
    for trend in right.trends:
        (one,) = trend.estimates
        assert not right.y.cuts(one.y)


def test_what_has_no_place_is_counted() -> None:
    lad = rungs({4: 0.1, 2: 1.0})
    broken = Forecast(math.inf, math.inf, 1.0, math.inf)
    rows = (lad.rows[0], replace(lad.rows[1], forecasts={**lad.rows[1].forecasts, "rtn": broken}))
    figure = drawn(replace(lad, rows=rows), {(PLACE, 4): outcome(math.nan), (PLACE, 2): outcome(1e9)})
    checked(figure)
    assert figure.notes[-1] == "Not shown: 1 value that is no number. 2 values lie beyond the frame."


def test_two_bitwidths_of_nearly_one_error_make_no_law_too_steep_to_draw() -> None:
    near = replace(reading(3, 0.5), relative_error=0.1), replace(reading(4, 0.01), relative_error=0.1 * (1 - 1e-9))
    checked(drawn(ladder(near, CORRECTIONS)))


def test_losses_of_landscapes_are_not_in_nats() -> None:
    figure = drawn(rungs(basin=Basin(0.02, exact=True)))
    assert all("loss units" in panel.y.title for panel in frames(figure))


def test_every_ladder_has_a_file_of_its_own(tmp_path: Path) -> None:
    places: list[Place] = [
        ("org/net", "mse[per_channel]", "keep", 0),
        ("org/net", "mse[per_channel]", "recalibrate", 0),
        ("org/net", "mse[per_channel]", "recalibrate", 1),
        ("org/net", "absmax", "keep", 0),
        ("org/net", "mse[per_group=64]", "keep", 0),
        ("org-net", "absmax", "keep", 0),
    ]
    ladders = {place: rungs({4: 0.1, 2: 1.0}, place) for place in places}
    figures = diagnosis_figures(ladders, {})
    assert diagnosis_figures(dict(reversed(ladders.items())), {}) == figures
    assert len({figure.name.lower() for figure in figures}) == len(places)
    assert any("batch norms: recalibrate; seed 1" in figure.of for figure in figures)
    written = write_diagnosis(ladders, {}, tmp_path / "new", ("svg",))
    assert sorted(path.stem for path in written) == sorted(figure.name for figure in figures)
    assert all(path.read_bytes().startswith(b"<svg") for path in written)


def test_a_ladder_alone_is_named_after_model_and_quantizer(tmp_path: Path) -> None:
    assert [path.name for path in write_diagnosis({PLACE: rungs()}, MEASURED, tmp_path, ("svg", "png"))] == [
        "diagnosis_llama-1m_mse.svg",
        "diagnosis_llama-1m_mse.png",
    ]


def test_no_ladders_no_figures(tmp_path: Path) -> None:
    empty = {PLACE: Ladder((), Law((), ()))}
    assert write_diagnosis({}, {}, tmp_path / "new") == write_diagnosis(empty, {}, tmp_path / "new") == []
    assert not (tmp_path / "new").exists()

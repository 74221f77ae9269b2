"""Figures of a leaderboard show what the leaderboard says, and say what they leave out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair
import pytest

from qbench.report.figures.board import board_figures, write_board_figures
from qbench.report.figures.board_pareto import front
from qbench.report.figures.board_parts import shelves
from qbench.report.figures.drawing import claim_of, image, specification
from qbench.report.figures.estimates import Estimate, Trend
from qbench.report.figures.figure import Axis, Bars, Figure, Panel
from qbench.report.landscape_sheet import Sheet
from qbench.report.leaderboard import Group
from qbench.report.run import Run
from qbench.store.record import Cost, Record

MakeRecord = Callable[..., Record]

# Above full precision by bits, per document: rounding is outside the basin from 3 bits on.
LOST = {
    "rtn": {8: 0.001, 4: 0.02, 3: 0.3, 2: 2.0},
    "gptq": {8: 0.002, 4: 0.015, 3: 0.2, 2: 2.6},
    "ste_qat[steps=9]": {8: 0.03, 4: 0.03, 3: 0.1, 2: 0.4},
}
SECONDS = {"rtn": 0.01, "gptq": 3.0, "ste_qat[steps=9]": 40.0}
SPREAD = (0.9, 1.0, 1.2, 0.95)  # of documents


def board_records(
    make: MakeRecord, model: str = "tiny", quantizers: tuple[str, ...] = ("mse", "absmax")
) -> list[Record]:
    records = []
    for seed in range(2):
        records.append(make(f"{model}/fp/s{seed}"))
        for place, quantizer in enumerate(quantizers):
            for method, by_bits in LOST.items():
                for bits, lost in by_bits.items():
                    label = f"{model}/{quantizer}/{bits}b/{method}/s{seed}"
                    trained = 4096 * method.startswith("ste")
                    cost = Cost(method_seconds=SECONDS[method] * (1 + seed), train_tokens=trained)
                    own = [lost * (1 + place) * (1 + 0.1 * seed) * share for share in SPREAD]
                    records.append(make(label, own, cost=cost))
    return records


@pytest.fixture(scope="module")
def run(make_record: MakeRecord) -> Run:
    return Run("drawn", board_records(make_record))


@pytest.fixture(scope="module")
def figures(run: Run) -> dict[str, Figure]:
    return {figure.name: figure for figure in board_figures(run)}


@pytest.fixture(scope="module")
def image_run(make_image_record: MakeRecord) -> Run:
    records = []
    for seed in range(2):
        records.append(make_image_record(f"net/fp/s{seed}", accuracy=0.98))
        for method, by_bits in LOST.items():
            for bits, lost in by_bits.items():
                label = f"net/mse/{bits}b/{method}/s{seed}"
                accuracy = 0.98 - 0.1 * lost * (1 + 0.2 * seed)
                cost = Cost(method_seconds=SECONDS[method])
                records.append(make_image_record(label, [lost * share for share in SPREAD], accuracy, cost=cost))
    return Run("images", records)


def group_of(run: Run, quantizer: str) -> Group:
    (found,) = [group for group in run.board.groups if group.quantizer == quantizer]
    return found


def panels(figure: Figure) -> Iterator[Panel]:
    for panel in figure.panels:
        assert isinstance(panel, Panel)
        yield panel


def frames(figure: Figure) -> Iterator[Bars]:
    for panel in figure.panels:
        assert isinstance(panel, Bars)
        yield panel


def test_every_kind_of_figure_is_there(figures: dict[str, Figure]) -> None:
    assert list(figures) == ["ladder_tiny", "recovery_tiny", "pareto_tiny"]
    assert {claim_of(figure) for figure in figures.values()} == {None}


def test_a_ladder_shows_the_excess_of_every_entry_with_its_interval(run: Run, figures: dict[str, Figure]) -> None:
    shown = 0
    for panel in panels(figures["ladder_tiny"]):
        group = group_of(run, panel.title)
        assert {trend.series for trend in panel.trends} == set(group.rows)
        for trend in panel.trends:
            for one in trend.estimates:
                excess = group.rows[trend.series][int(one.x)].excess
                assert excess is not None
                assert (one.y, one.low, one.high) == (excess.mean, excess.low, excess.high)
                assert one.low is not None
                shown += 1
    assert shown == 2 * 3 * 4


def test_thresholds_are_those_rounding_is_judged_by(run: Run, figures: dict[str, Figure]) -> None:
    for panel in panels(figures["ladder_tiny"]):
        row = group_of(run, panel.title).rows["rtn"]
        regimes = {float(bits): entry.regime for bits, entry in row.items()}
        for guide, name in zip(panel.guides, ("tau", "tau_f"), strict=True):
            assert {bits: getattr(regimes[bits], name) for bits in guide.x} == dict(zip(guide.x, guide.y, strict=True))
            assert len(guide.x) == 4


def test_the_grid_on_which_least_is_lost_comes_first(figures: dict[str, Figure]) -> None:
    assert [panel.title for panel in figures["ladder_tiny"].panels] == ["mse", "absmax"]


def test_bars_are_what_the_leaderboard_says_is_recovered(run: Run, figures: dict[str, Figure]) -> None:
    found = {}
    for frame in frames(figures["recovery_tiny"]):
        quantizer, bits = frame.title.replace("\N{NO-BREAK SPACE}bits", "").split(", ")
        for bar in frame.bars:
            found[quantizer, int(bits), bar.series] = (bar.value, bar.low, bar.high)
    wanted = {
        (str(group.quantizer), bits, method): (won.mean, won.low, won.high)
        for group in run.board.groups
        for method, row in group.rows.items()
        for bits, entry in row.items()
        if (won := entry.recovered) is not None
    }
    assert found == wanted
    assert {bits for _, bits, _ in found} == {3, 2}
    assert min(value for value, _, _ in found.values()) < 0  # gptq at two bits is worse than rounding


def test_worse_than_rounding_is_seen_on_the_other_side_of_zero(figures: dict[str, Figure]) -> None:
    for frame in frames(figures["recovery_tiny"]):
        worst = min(bar.value for bar in frame.bars)
        assert frame.x.low is not None
        assert frame.x.low <= max(worst, -1.0)
        assert [(level.axis, level.value) for level in frame.levels] == [("x", 0.0)]


def test_grids_of_one_method_each_share_a_frame(make_record: MakeRecord) -> None:
    records = [r for r in board_records(make_record) if "ste_qat" not in r.label]
    (figure,) = [one for one in board_figures(Run("two", records)) if one.name == "recovery_tiny"]
    assert [frame.title for frame in figure.panels] == [
        "gptq, 2\N{NO-BREAK SPACE}bits",
        "gptq, 3\N{NO-BREAK SPACE}bits",
    ]
    assert [[bar.name for bar in frame.bars] for frame in frames(figure)] == [["mse", "absmax"]] * 2


def dominated(place: tuple[float, float], places: list[tuple[float, float]]) -> bool:
    return any(x <= place[0] and y <= place[1] and (x, y) != place for x, y in places)


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_dominates(seed: int) -> None:
    draw = random.Random(seed)
    # Few values, so that some are equal.
    places = [(float(draw.randint(1, 6)), float(draw.randint(-3, 3))) for _ in range(draw.randint(1, 12))]
    assert front(places) == sorted({place for place in places if not dominated(place, places)})
    assert front(draw.sample(places, len(places))) == front(places)


def test_dominated_methods_are_faint_and_the_front_is_drawn(run: Run, figures: dict[str, Figure]) -> None:
    faint = set()
    for panel in panels(figures["pareto_tiny"]):
        places = {trend.series: (one.x, one.y) for trend in panel.trends for one in trend.estimates}
        assert {trend.series for trend in panel.trends if trend.faint} == {
            series for series, place in places.items() if dominated(place, list(places.values()))
        }
        (drawn,) = panel.fronts
        assert set(zip(drawn.x, drawn.y, strict=True)) == {
            (one.x, one.y) for trend in panel.trends if not trend.faint for one in trend.estimates
        }
        faint |= {(trend.series, panel.title) for trend in panel.trends if trend.faint}
        quantizer, bits = panel.title.replace("\N{NO-BREAK SPACE}bits", "").split(", ")
        for series, (seconds, lost) in places.items():
            entry = group_of(run, quantizer).rows[series][int(bits)]
            assert entry.excess is not None
            assert (entry.method_seconds, entry.excess.mean) == (seconds, lost)
    assert faint == {("gptq", f"{quantizer}, 2\N{NO-BREAK SPACE}bits") for quantizer in ("mse", "absmax")}


def test_what_took_no_time_has_no_place_and_is_counted(make_record: MakeRecord) -> None:
    def timed(record: Record) -> Record:
        at_once = record.label.startswith("tiny/mse/2b/own/")
        return record.model_copy(update={"cost": Cost()}) if at_once else record

    own = [make_record(f"tiny/mse/2b/own/s{seed}", 0.4) for seed in range(2)]
    records = [timed(record) for record in [*board_records(make_record), *own]]
    (figure,) = [one for one in board_figures(Run("drawn", records)) if one.name == "pareto_tiny"]
    assert "own" not in series_at(figure, "mse, 2\N{NO-BREAK SPACE}bits")
    assert any("Not drawn: 1 that took no measurable time." in note for note in figure.notes)


def test_images_have_their_accuracy_beside_the_loss(image_run: Run) -> None:
    by_name = {figure.name: figure for figure in board_figures(image_run)}
    loss, accuracy = panels(by_name["ladder_net"])
    assert loss.y.title.endswith("(nats an image)")
    (level,) = accuracy.levels
    assert (level.value, level.name) == (0.0, "fp 98.0 %")
    rows = group_of(image_run, "mse").rows
    for trend in accuracy.trends:
        for one in trend.estimates:
            change = rows[trend.series][int(one.x)].accuracy_change
            assert change is not None
            assert change.low is not None
            assert change.high is not None
            assert (one.y, one.low, one.high) == (100 * change.mean, 100 * change.low, 100 * change.high)
    for panel in panels(by_name["pareto_net"]):
        for trend in panel.trends:
            (one,) = trend.estimates
            bits = int(panel.title.split(", ")[1].split("\N{NO-BREAK SPACE}")[0])
            change = rows[trend.series][bits].accuracy_change
            assert change is not None
            assert one.y == -100 * change.mean
            assert one.low is not None
            assert one.high is not None
            assert one.low <= one.y <= one.high


def series_at(figure: Figure, title: str) -> dict[str, list[float]]:
    (panel,) = [panel for panel in panels(figure) if panel.title == title]
    return {trend.series: [one.x for one in trend.estimates] for trend in panel.trends}


@pytest.mark.parametrize("how", ["missing", "failed", "diverged"])
def test_what_lacks_a_seed_is_left_out_and_counted(make_record: MakeRecord, how: str) -> None:
    records = board_records(make_record)
    places = [record.axes for record in records]
    gone = "tiny/mse/2b/gptq/s1"
    (place,) = [number for number, record in enumerate(records) if record.label == gone]
    if how == "missing":
        del records[place]
    else:
        records[place] = make_record(gone, status=how, reason="planted")
    by_name = {figure.name: figure for figure in board_figures(Run("drawn", records, places))}
    assert series_at(by_name["ladder_tiny"], "mse")["gptq"] == [8.0, 4.0, 3.0]
    assert series_at(by_name["ladder_tiny"], "absmax")["gptq"] == [8.0, 4.0, 3.0, 2.0]
    for name, figure in by_name.items():
        said = "Not drawn: 1 entry that lacks a seed or a comparison."
        assert any(said in note for note in figure.notes) is (name != "pareto_tiny"), name
    (frame,) = [one for one in frames(by_name["recovery_tiny"]) if one.title == "mse, 2\N{NO-BREAK SPACE}bits"]
    assert [bar.series for bar in frame.bars] == ["ste_qat[steps=9]"]


def test_nothing_is_said_to_be_left_out_where_nothing_is(figures: dict[str, Figure]) -> None:
    assert not any("Not drawn" in note for figure in figures.values() for note in figure.notes)


def test_ablations_and_further_variants_are_left_to_other_figures(make_record: MakeRecord) -> None:
    records = board_records(make_record, quantizers=("mse",))
    more = ["latent_grad", "ste_qat[steps=9,learning_rate=1,momentum=0]", *(f"own{i}" for i in range(9))]
    records += [
        make_record(f"tiny/mse/{bits}b/{name}/s{seed}", 0.5) for name in more for bits in (4, 2) for seed in (0, 1)
    ]
    (ladder,) = [figure for figure in board_figures(Run("many", records)) if figure.name == "ladder_tiny"]
    drawn = series_at(ladder, "mse")
    assert len(drawn) == 8
    assert {"rtn", "ste_qat[steps=9]"} <= drawn.keys()  # gptq loses most
    assert not {"latent_grad", more[1]} & drawn.keys()
    assert any("6 more methods are in the table." in note for note in ladder.notes)


def test_the_order_of_records_does_not_matter(run: Run, figures: dict[str, Figure]) -> None:
    mixed = Run("drawn", random.Random(5).sample(list(run.records), len(run.records)), run.places)
    again = {figure.name: figure for figure in board_figures(mixed)}
    assert again == figures
    for name, figure in figures.items():
        assert image(specification(again[name]), "svg") == image(specification(figure), "svg")


def test_specifications_are_vega_lite_with_tooltips(figures: dict[str, Figure], image_run: Run) -> None:
    for figure in [*figures.values(), *board_figures(image_run)]:
        spec = specification(figure)
        altair.Chart.from_dict(spec)  # raises where the schema is not met
        told = {one["title"] for encoding in encodings(spec) for one in encoding.get("tooltip", [])}
        assert "95 % interval" in told
        assert "regime" in told
        assert len(json.dumps(spec)) < 60_000


def encodings(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part.get("encoding", {})
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
        yield from encodings(one)


def test_files_are_named_after_the_model(run: Run, tmp_path: Path) -> None:
    written = write_board_figures(run, tmp_path / "new", ("svg",))
    assert [path.name for path in written] == ["ladder_tiny.svg", "recovery_tiny.svg", "pareto_tiny.svg"]
    assert all(path.read_bytes().startswith(b"<svg") for path in written)


def test_two_models_have_files_of_their_own(make_record: MakeRecord) -> None:
    records = [r for name in ("m[phase=end,x=1]", "m[phase=start,x=1]") for r in board_records(make_record, name)]
    names = [figure.name for figure in board_figures(Run("two", records))]
    assert len(set(names)) == len(names) == 6
    assert "ladder_m-phase=end" in names


def test_many_grids_take_several_pages(make_record: MakeRecord) -> None:
    records = board_records(make_record, quantizers=tuple(f"q{i}" for i in range(7)))
    figures = [figure for figure in board_figures(Run("many", records)) if figure.name.startswith("ladder")]
    assert [(figure.name, len(figure.panels)) for figure in figures] == [("ladder_tiny", 6), ("ladder_tiny_2", 1)]


def test_of_many_grids_the_front_of_bits_and_loss_is_named(make_record: MakeRecord) -> None:
    def sized(record: Record) -> Record:
        if record.axes["bits"] is None:
            return record
        # The grids that lose less are not always the larger ones.
        more = 7 - int(str(record.axes["quantizer"])[1:]) * 3 % 7
        return record.model_copy(update={"effective_bits": int(record.axes["bits"]) + 0.1 * more})

    records = [sized(record) for record in board_records(make_record, quantizers=tuple(f"q{i}" for i in range(7)))]
    run = Run("many", records)
    (figure,) = [one for one in board_figures(run) if one.name == "grids_tiny"]
    assert [panel.title for panel in figure.panels] == ["rtn", "gptq", "ste_qat"]
    for panel, method in zip(panels(figure), LOST, strict=True):
        places = {}
        for group in run.board.groups:
            for bits, entry in group.rows[method].items():
                assert entry.effective_bits is not None
                assert entry.excess is not None
                places[f"{group.quantizer} {bits}b"] = (entry.effective_bits, entry.excess.mean)
        assert {dict(one.told)["grid"]: (one.x, one.y) for trend in panel.trends for one in trend.estimates} == places
        best = {name for name, place in places.items() if not dominated(place, list(places.values()))}
        assert {trend.label for trend in panel.trends} - {""} == best
        assert 4 <= len(best) < len(places)
        assert sum(not trend.faint for trend in panel.trends) == len(best)


def test_few_grids_have_no_front(figures: dict[str, Figure]) -> None:
    assert not any(name.startswith("grids") for name in figures)


def test_what_tables_about_landscapes_stand_for_has_no_figure(run: Run) -> None:
    told = (("tiny", "mse"),)
    board = replace(run.board, landscapes=(Sheet("valley", told, "", (), (), ()),))
    (shelf,) = shelves(board)
    assert [group.quantizer for group in shelf.groups] == ["absmax"]


def test_no_records_no_figures(tmp_path: Path) -> None:
    assert write_board_figures(Run("none", []), tmp_path / "new") == []
    assert not (tmp_path / "new").exists()


def test_the_radius_of_the_basin_is_where_the_walk_crosses_the_tolerance(network_records: list[Record]) -> None:
    def probe(seed: int, bits: int) -> Record:
        (like,) = [r for r in network_records if r.label == f"llama-1m/mse[per_channel]/{bits}b/curvature/s{seed}"]
        scales = [0.25, 0.5, 1.0, 2.0, 4.0]
        walk = [0.1 * scale**2 for scale in scales]  # crosses .05 at 1 / sqrt 2
        traces = {"scale": scales} | {f"{kind}/excess": walk for kind in ("rtn", "gaussian")}
        axes = {**like.axes, "method": "radius"}
        key = {
            **like.key,
            "probe": {"options": {"name": "radius"}, "version": 1, "sources": {"qbench.geometry.radius": "x"}},
        }
        fields = {
            "axes": axes,
            "key": key,
            "cell_id": f"radius{seed}{bits}",
            "traces": traces,
            "metrics": {"distance": 8.0},
        }
        return like.model_copy(update=fields)

    records = [*network_records, *(probe(seed, 3) for seed in (0, 1))]
    found = {figure.name: figure for figure in board_figures(Run("theory", records))}
    by_bits, by_distance = panels(found["basin_llama-1m"])
    radii = [level.value for level in by_bits.levels]
    assert radii == pytest.approx([8.0 / 2**0.5] * 2)
    assert [level.value for level in by_distance.levels if level.axis == "x"] == radii
    assert [level.value for level in by_distance.levels if level.axis == "y"] == [0.05]
    moved = {curve.seed: curve.y for curve in by_bits.curves if curve.series == "rtn"}
    assert moved == {seed: tuple(4.0**-bits * 1000 for bits in (8, 4, 3, 2)) for seed in (0, 1)}
    altair.Chart.from_dict(specification(found["basin_llama-1m"]))
    assert "basin_llama-1m" not in {figure.name for figure in board_figures(Run("theory", network_records))}


def test_whiskers_of_points_end_where_intervals_do() -> None:
    ends = Trend("rtn", (Estimate(4.0, 1.0, 0.5, 2.0), Estimate(2.0, 3.0)))
    panel = Panel("", Axis("bits", "log", ticks=(4.0, 2.0), falling=True), Axis("D"), (), trends=(ends,))
    spec = specification(Figure("x", "x", "", (), (panel,), 1))
    (rule,) = [layer for layer in spec["layer"] if layer["mark"]["type"] == "rule"]
    assert [(row["x"], row["y"], row["end"]) for row in rule["data"]["values"]] == [(4, 0.5, 2)]
    (points,) = [layer for layer in spec["layer"] if layer["mark"]["type"] == "point"]
    assert [row.get("interval") for row in points["data"]["values"]] == ["0.5 to 2", None]

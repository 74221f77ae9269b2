"""Every figure from records: what is drawn, what is not, and that the numbers are those of the records."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair
import pytest

from qbench.claims.catalogue import all_claims, judge
from qbench.errors import QBenchError
from qbench.report.figures.drawing import claim_of, image, specification
from qbench.report.figures.encoding import rounded
from qbench.report.figures.figure import Figure
from qbench.report.figures.theme import styles
from qbench.report.figures.write import figures_of, write_figures
from qbench.store.record import Record

NAMES = [
    "C01_sharp_failure",
    "C02_step_ladder",
    "C03_quadratic",
    "C04_second_order",
    "C06_segments",
    "C07_inward",
    "C08_trajectory",
    "C09_locus",
    "C10_first_entry",
    "C11_compatibility",
    "C12_gap",
    "C13_distance",
    "C14_width",
    "T1_first_entries",
]


@pytest.fixture(scope="module")
def figures(records: list[Record]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures_of(records)}


@pytest.fixture(scope="module")
def specs(figures: dict[str, Figure]) -> dict[str, dict[str, Any]]:
    return {name: specification(figure) for name, figure in figures.items()}


def name_of(record: Record) -> str:
    return str(record.axes["method"]).partition("[")[0]


def found(records: Sequence[Record], name: str, seed: int, bits: int) -> Record:
    (one,) = [r for r in records if name_of(r) == name and (r.axes["seed"], r.axes["bits"]) == (seed, bits)]
    return one


def rows(spec: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows of all data of a specification that have some values."""
    return [row for row in rows_in(spec) if all(row.get(key) == value for key, value in wanted.items())]


def rows_in(spec: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of all data in a part of a specification, one a place."""
    if isinstance(spec, dict):
        for row in spec.get("data", {}).get("values", []):
            if isinstance(row.get("x"), list):
                yield from ({**row, "x": x, "y": y} for x, y in zip(row["x"], row["y"], strict=True))
            else:
                yield row
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else []:
        yield from rows_in(part)


def test_every_claim_has_its_figure(figures: dict[str, Figure]) -> None:
    assert list(figures) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_an_svg_that_says_what_it_shows(
    figures: dict[str, Figure], specs: dict[str, dict[str, Any]], name: str
) -> None:
    picture = image(specs[name], "svg")
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = {" ".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    figure = figures[name]
    assert figure.title.startswith(name.partition("_")[0].replace("C0", "C").replace("C6", "C5, C6"))
    told = " ".join(words)
    for text in (figure.title, figure.of):
        assert all(word in told for word in text.split())
    for panel in figure.panels:
        assert {panel.x.title, panel.y.title} <= words
        assert all(word in told for word in panel.title.split())
    assert "http://" not in picture.decode().replace("http://www.w3.org/", "")


def test_axes_of_losses_and_steps_have_units(figures: dict[str, Figure]) -> None:
    for name in ("C01_sharp_failure", "C02_step_ladder", "C08_trajectory"):
        for panel in figures[name].panels:
            unit = "(loss units)" if panel.title.startswith("river_valley") else "(nats)"
            assert panel.y.title.endswith(unit)
    assert "weight units" in figures["C02_step_ladder"].panels[0].x.title


@pytest.mark.parametrize(
    ("missing", "figures"),
    [
        ("ladder", {"C02_step_ladder", "C14_width"}),
        ("curvature", {"C03_quadratic", "C13_distance"}),
        ("segments", {"C06_segments"}),
        ("inward", {"C07_inward"}),
        ("ft_then_ptq", {"C12_gap"}),
    ],
)
def test_a_figure_without_data_is_not_drawn(records: list[Record], missing: str, figures: set[str]) -> None:
    left = [record for record in records if name_of(record) != missing]
    assert {figure.name for figure in figures_of(left)} == set(NAMES) - figures


def test_one_bitwidth_has_a_null_to_be_seen_and_a_handful_of_weights_has_none(network_records: list[Record]) -> None:
    only = [r for r in network_records if name_of(r) == "fp" or (name_of(r) == "inward" and r.axes["bits"] == 2)]
    (figure,) = figures_of(only)
    (band,) = figure.panels[0].bands
    assert (band.x, band.high) == ((2.5, 1.5), (0.0027, 0.0027))
    wide = [r.model_copy(update={"metrics": {**r.metrics, "null/high": 1.0}}) if r.is_probe else r for r in only]
    assert not figures_of(wide)


def test_without_trajectories_there_is_none_of_their_figures(records: list[Record]) -> None:
    left = [r if r.is_probe else r.model_copy(update={"traces": {}}) for r in records]
    gone = {"C08_trajectory", "C10_first_entry", "C11_compatibility", "T1_first_entries"}
    assert {figure.name for figure in figures_of(left)} == set(NAMES) - gone


def test_no_records_no_files(tmp_path: Path) -> None:
    assert write_figures([], tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_the_order_of_records_does_not_matter(
    records: list[Record], figures: dict[str, Figure], specs: dict[str, dict[str, Any]]
) -> None:
    mixed = {figure.name: figure for figure in figures_of(random.Random(3).sample(records, len(records)))}
    assert mixed == figures
    name = "C02_step_ladder"
    first, again = image(specs[name], "svg"), image(specification(mixed[name]), "svg")
    assert b"clip" in first
    assert again == first


def test_every_series_of_a_figure_looks_other_without_colour(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        looks = styles(curve.series for panel in figure.panels for curve in panel.curves).values()
        assert len({style.shape for style in looks}) == len({style.dash for style in looks}) == len(looks), figure.name


def test_files_are_written_in_each_format(network_records: list[Record], tmp_path: Path) -> None:
    only = [record for record in network_records if name_of(record) in ("fp", "inward")]
    written = write_figures(only, tmp_path / "a" / "b")
    assert [path.name for path in written] == ["C07_inward.svg", "C07_inward.png"]
    assert written[0].read_bytes().startswith(b"<svg")
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert [path.suffix for path in write_figures(only, tmp_path, ("svg",))] == [".svg"]


def test_what_is_drawn_of_ladders_and_segments_are_their_traces(
    records: list[Record], specs: dict[str, dict[str, Any]]
) -> None:
    spec = specs["C02_step_ladder"]
    for seed in (0, 1):
        # Both ladders begin inside and leave: the one from the most bits counts.
        traces = found(records, "ladder", seed, 8).traces
        for label, name in (("rtn (nearest)", "rtn"), ("uniform noise of one step", "noise")):
            drawn = {(row["x"], row["y"]) for row in rows(spec, series=label, seed=seed)}
            held = zip(traces["step"], traces[f"{name}/excess"], strict=True)
            assert drawn == {
                (rounded(step), rounded(excess)) for step, excess in held if excess > 0
            }  # the axis is logarithmic
    spec = specs["C06_segments"]
    traces = found(records, "segments", 1, 2).traces
    drawn = {(row["x"], row["y"]) for row in rows(spec, series="full precision to rtn", seed=1)}
    held = zip(traces["t"], traces["fp->rtn"], strict=True)
    assert {(rounded(t), rounded(excess)) for t, excess in held} <= drawn


def test_what_is_drawn_of_gradients_is_measured_and_so_is_its_null(
    records: list[Record], specs: dict[str, dict[str, Any]]
) -> None:
    spec = specs["C07_inward"]
    for bits in (8, 4, 3, 2):
        for seed in (0, 1):
            metrics = found(records, "inward", seed, bits).metrics
            for label, name in (("deployed weights Q(w)", "deployed"), ("latent weights w", "latent")):
                drawn = rows(spec, series=label, seed=seed, x=bits)
                assert {row["y"] for row in drawn} == {rounded(metrics[f"cosine/{name}"])}
    band = [(row["y"], row["end"]) for row in rows_in(spec) if "end" in row]
    assert band == [(pytest.approx(-0.0027), pytest.approx(0.0027))] * 4


def test_of_several_trainings_all_seeds_of_a_trajectory_show_the_same(
    make_network: Callable[..., list[Record]], figures: dict[str, Figure]
) -> None:
    # Seed 0 ends best at another rate than the mean of both does.
    held = make_network("llama-1m", seeds=(0, 1))
    better = next(r for r in held if "learning_rate=0.003" in r.label and name_of(r) == "ste_qat" and "/3b/" in r.label)
    assert better.axes["seed"] == 0
    documents = [one.model_copy(update={"loss_sum": one.loss_sum - 4}) for one in better.documents]
    metrics = {name: value - 0.04 for name, value in better.metrics.items()}
    swapped = better.model_copy(update={"documents": documents, "metrics": metrics})
    drawn = {f.name: f for f in figures_of([swapped if r is better else r for r in held])}["C08_trajectory"].panels[0]
    assert "rate 0.003, 200 steps" in drawn.title
    assert "rate 0.001, 200 steps" in figures["C08_trajectory"].panels[0].title
    assert {curve.seed for curve in drawn.curves} == {0, 1}
    with_rate = [r for r in held if "learning_rate=0.003" in r.label and name_of(r) == "ste_qat" and "/3b/" in r.label]
    ends = {r.axes["seed"]: r.traces["trajectory/deployed"] for r in with_rate}
    assert {curve.seed: list(curve.y) for curve in drawn.curves if curve.series == "deployed"} == ends


def test_gap_closure_is_that_of_the_losses(network_records: list[Record], specs: dict[str, dict[str, Any]]) -> None:
    spec = specs["C09_locus"]
    at_two = [r for r in network_records if r.axes["bits"] in (None, 2) and r.loss is not None]
    loss = {(name_of(r), r.axes["seed"]): r.loss for r in at_two}
    for record in at_two:
        options = record.key.get("method", {}).get("options", {})
        if options.get("name") == "noise_grad":
            seed = record.axes["seed"]
            rtn, full = loss["rtn", seed], loss["fp", seed]
            assert rtn is not None
            assert full is not None
            assert record.loss is not None
            closed = (rtn - record.loss) / (rtn - full)
            drawn = rows(spec, series="noise_grad (at w + noise)", seed=seed, x=options["learning_rate"])
            assert any(row["y"] == pytest.approx(closed, rel=1e-4) for row in drawn)


def test_the_latest_first_entry_by_its_bound_is_the_one_the_claim_tells(
    records: list[Record], figures: dict[str, Figure]
) -> None:
    landscape = [record for record in records if record.axes["model"] == "river_valley"]
    worst: dict[int, float] = {}
    for judgement in judge(landscape, only=["T1"]):
        for seed, one in judgement.seeds.items():
            share = one.numbers.get("largest_share_of_bound", -math.inf)
            worst[seed] = max(worst.get(seed, -math.inf), share)
    curves = figures["T1_first_entries"].panels[0].curves
    drawn = {seed: max(c.y[0] / c.x[0] for c in curves if c.seed == seed) for seed in worst}
    assert drawn == pytest.approx(worst)


def test_a_method_that_only_has_the_name_is_not_drawn(records: list[Record], figures: dict[str, Figure]) -> None:
    def foreign() -> Iterator[Record]:
        for record in records:
            yield record
            if name_of(record) == "gptq" and not record.is_probe:
                key = {**record.key, "method": {**record.key["method"], "sources": {"elsewhere.gptq": "x"}}}
                axes = {**record.axes, "method": "gptq[act_order=true]"}
                yield record.model_copy(update={"key": key, "axes": axes, "cell_id": f"{record.cell_id}-foreign"})

    assert {figure.name: figure for figure in figures_of(foreign())} == figures


def test_several_models_share_a_figure(make_network: Callable[..., list[Record]]) -> None:
    held = [record for name in ("a", "b") for record in make_network(name, seeds=(0,))]
    by_name = {figure.name: figure for figure in figures_of(r for r in held if name_of(r) in ("fp", "rtn", "ladder"))}
    ladder = by_name["C02_step_ladder"]
    assert ladder.of.startswith("Models a, b; quantizer mse")
    assert [panel.title.partition(",")[0] for panel in ladder.panels] == ["a", "b"]


def test_checkpoints_of_one_model_share_a_panel_that_says_how_they_agree(
    make_network: Callable[..., list[Record]],
) -> None:
    held = [record for name in ("a[phase=end]", "a[phase=stable]") for record in make_network(name, seeds=(0, 1))]
    (figure,) = [
        one for one in figures_of(r for r in held if name_of(r) in ("fp", "ladder")) if one.name == "C14_width"
    ]
    assert figure.of.startswith("Models a[phase=end], a[phase=stable]; ")
    (panel,) = figure.panels
    assert {curve.series for curve in panel.curves} == {"a[phase=end]", "a[phase=stable]"}
    assert b"rank correlation 1.00" in image(specification(figure), "svg")


def test_a_missing_library_is_said_with_what_to_install(
    figures: dict[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    spec = specification(figures["C01_sharp_failure"])
    with pytest.raises(QBenchError, match=r"vl-convert-python: pip install qbench\[report\]"):
        image(spec, "svg")


@pytest.mark.parametrize("name", NAMES)
def test_specifications_are_vega_lite_of_moderate_size(specs: dict[str, dict[str, Any]], name: str) -> None:
    altair.Chart.from_dict(specs[name])  # raises where the schema is not met
    assert len(json.dumps(specs[name])) < 80_000


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_belongs_to_its_claim(figures: dict[str, Figure], name: str) -> None:
    assert claim_of(figures[name]) in all_claims()


def test_figures_are_found_without_the_libraries_that_draw_them() -> None:
    program = (
        "import sys, qbench.report.figures.write as w\n"
        "w.figures_of([])\n"
        "assert not {'altair', 'vl_convert', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr

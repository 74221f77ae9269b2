"""Figures of one cell show its traces and its layers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import altair
import pytest

from qbench.report.figures.cells import cell_figures
from qbench.report.figures.drawing import claim_of, specification
from qbench.report.figures.figure import Bars, Figure, Panel
from qbench.store.record import LayerRow, Record

MakeRecord = Callable[..., Record]
LABEL = "tiny/mse/2b/brecq/s1"


def layers(count: int) -> list[LayerRow]:
    return [
        LayerRow(name=f"model.layers.{i}.up", shape=(2, 2), weight_error=0.1 * (i % 3), output_error=0.2 + i, levels=4)
        for i in range(count)
    ]


def panel(figure: Figure) -> Panel:
    (found,) = figure.panels
    assert isinstance(found, Panel)
    return found


def test_errors_of_layers_are_bars_in_the_order_of_the_model(make_record: MakeRecord) -> None:
    (figure,) = cell_figures(make_record(LABEL, 0.1, layers=layers(12)))
    weights, outputs = figure.panels
    assert isinstance(weights, Bars)
    assert isinstance(outputs, Bars)
    assert [bar.name for bar in weights.bars] == [f"{i}.up" for i in range(12)]
    assert [bar.value for bar in weights.bars] == [0.1 * (i % 3) for i in range(12)]
    assert [bar.value for bar in outputs.bars] == [0.2 + i for i in range(12)]
    spec = specification(figure)
    domain = spec["concat"][0]["encoding"]["y"]["scale"]["domain"]
    assert domain == [f"{i}.up" for i in range(12)]
    assert spec["concat"][1]["encoding"]["y"]["axis"]["labels"] is False


def test_a_short_trace_is_drawn_as_it_is(make_record: MakeRecord) -> None:
    losses = [3.0, 2.0, 2.5]
    (figure,) = cell_figures(make_record(LABEL, layers=[], traces={"train_loss": losses}))
    (curve,) = panel(figure).curves
    assert (curve.seed, curve.x, curve.y) == (1, (1.0, 2.0, 3.0), tuple(losses))
    assert figure.notes == ()


def test_a_long_trace_is_drawn_as_means_and_says_so(make_record: MakeRecord) -> None:
    losses = [math.sin(step) for step in range(950)]
    (figure,) = cell_figures(make_record(LABEL, layers=[], traces={"train_loss": losses}))
    (curve,) = panel(figure).curves
    assert len(curve.y) == 95
    assert sum(curve.y) / 95 == pytest.approx(sum(losses) / 950)
    assert figure.notes == ("Means over 10 steps each.",)
    assert len(json.dumps(specification(figure))) < 8_000


def test_traces_of_one_kind_share_a_frame_and_errors_of_traces_have_none(make_record: MakeRecord) -> None:
    traces = {
        "scale": [0.5, 1.0, 2.0],
        "rtn/excess": [0.1, 0.2, 0.4],
        "rtn/se": [0.01, 0.01, 0.01],
        "gaussian/excess": [0.1, 0.3, 0.9],
        "block_loss/0": [1.0, 0.5],
        "block_loss/1": [2.0, 0.5],
        "lonely": [1.0],
    }
    figures = {figure.name: figure for figure in cell_figures(make_record(LABEL, layers=[], traces=traces))}
    assert set(figures) == {"trace_excess-loss", "trace_block-loss"}
    walks = {curve.series: (curve.x, curve.y) for curve in panel(figures["trace_excess-loss"]).curves}
    assert walks == {"rtn": ((0.5, 1.0, 2.0), (0.1, 0.2, 0.4)), "gaussian": ((0.5, 1.0, 2.0), (0.1, 0.3, 0.9))}
    assert {curve.series for curve in panel(figures["trace_block-loss"]).curves} == {"0", "1"}
    assert all(claim_of(figure) is None for figure in figures.values())


def test_a_cell_without_anything_to_draw_has_no_figure(make_record: MakeRecord) -> None:
    assert cell_figures(make_record("tiny/fp/s0")) == []
    nothing = {"train_loss": [math.nan, math.inf]}
    assert cell_figures(make_record(LABEL, layers=[], traces=nothing, status="diverged", reason="planted")) == []


def test_records_of_all_kinds_make_vega_lite(records: list[Record]) -> None:
    kinds = {str(record.axes["method"]).partition("[")[0]: record for record in records}
    assert len(kinds) > 8
    for record in kinds.values():
        names = [figure.name for figure in cell_figures(record)]
        assert len(set(names)) == len(names)
        for figure in cell_figures(record):
            spec = specification(figure)
            altair.Chart.from_dict(spec)  # raises where the schema is not met
            assert len(json.dumps(spec)) < 20_000

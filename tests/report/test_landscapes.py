"""Tables of landscapes: the numbers that are known on paper, found in records of cells that were run."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qbench.claims.catalogue import judge
from qbench.report.landscape_sheet import Point, Sheet, Span, Value, digits
from qbench.report.leaderboard import Leaderboard, leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.text import render_text
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.store.record import Record
from qbench.suite.enumerate import enumerate_cells, places
from qbench.suite.load import load_suite

MakeRecord = Callable[..., Record]
Held = tuple[list[Record], list[dict[str, Any]]]

COMPATIBLE, ROUNDED = math.sqrt(12 / 64), (0.5, 0.9, 1.2)
LATTICES = ", ".join(f"{{name: lattice, unit: absolute, step: {share * COMPATIBLE}}}" for share in ROUNDED)
SUITE = f"""
name: valleys
presets:
  plain: {{optimizer: sgd, momentum: 0, schedule: constant, clip_norm: null, steps: 60}}
matrix:
  - models: [valley_a, valley_c]
    quantizers: [{{name: lattice, unit: absolute, step: 1}}]
    bits: [8]
    methods:
      - rtn
      - {{name: gptq, act_order: false}}
      - {{name: ste_qat, preset: plain, learning_rate: 0.02}}
      - {{name: ste_qat, preset: plain, learning_rate: 0.05}}
      - {{name: ste_qat, preset: plain, learning_rate: 0.1}}
      - {{name: latent_grad, preset: plain, learning_rate: 0.05}}
      - {{name: latent_grad, preset: plain, learning_rate: 0.1}}
    probes: [codewords]
    trajectory: 61
  - models: [{{name: valley_c, reverse: true}}]
    quantizers: [{{name: lattice, unit: absolute, step: 1}}]
    bits: [8]
    methods: [rtn, {{name: gptq, act_order: false}}]
  - models: [{{name: valley_b, noise: 0.3}}]
    quantizers: [{{name: lattice, unit: absolute, step: 1}}]
    bits: [8]
    methods: [rtn, {{name: ste_qat, preset: plain, learning_rate: 0.01}}]
    trajectory: 61
  - models: [valley_b]
    quantizers: [{{name: lattice, unit: absolute, step: 1}}]
    bits: [8]
    methods: [rtn, {{name: ste_qat, preset: plain, learning_rate: 0.01}}]
    probes: [codewords]
    trajectory: 61
  - models: [river_valley]
    quantizers: [{LATTICES}]
    bits: [8]
    methods: [rtn, qubo, {{name: ste_qat, preset: plain, learning_rate: 0.01}}]
    seeds: 2
    trajectory: 61
  - models: [{{name: river_valley, metric: normal}}]
    quantizers: [{{name: lattice, unit: absolute, step: {ROUNDED[1] * COMPATIBLE}}}]
    bits: [8]
    methods: [rtn, qubo]
    seeds: 2
  - models: [{{name: river_valley, visible: 0, offset: 0.8}}]
    quantizers: [{{name: lattice, unit: absolute, step: {0.8 * COMPATIBLE}}}]
    bits: [8]
    methods: [rtn, {{name: ste_qat, preset: plain, learning_rate: 0.02}}]
    trajectory: 61
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """Return the records of a suite of landscapes, and the places it names."""
    folder = tmp_path_factory.mktemp("valleys")
    file = folder / "valleys.yaml"
    file.write_text(SUITE, encoding="utf-8")
    found, session = enumerate_cells(load_suite(str(file))), Session("cpu")
    records = [
        execute(identify(cell), "valleys", session, folder / f"{at}.safetensors") for at, cell in enumerate(found)
    ]
    assert {record.status for record in records} == {"ok"}
    return records, places(found)


@pytest.fixture(scope="module")
def board(held: Held) -> Leaderboard:
    return leaderboard(*held)


def sheet_of(board: Leaderboard, title: str) -> Sheet:
    (found,) = [one for one in board.landscapes if one.title == title]
    return found


def rows_of(board: Leaderboard, title: str) -> list[dict[str, Value]]:
    found = sheet_of(board, title)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def changed(records: list[Record], model: str, method: str, update: dict[str, Any]) -> list[Record]:
    """Return the records, those of one method on one model with other fields."""
    mine = [(record.axes["model"], record.axes["method"]) == (model, method) for record in records]
    assert any(mine)
    return [one.model_copy(update=update) if own else one for one, own in zip(records, mine, strict=True)]


# Distance from the weights and z across the valley, worked out by hand.
CORNERS = {
    "valley_a": {
        "(1,1)": (0.2121, 0.8621),
        "(1,0)": (0.8631, 0.155),
        "(0,1)": (0.8631, 0.155),
        "(0,0)": (1.2021, -0.5521),
    },
    "valley_c": {
        "(1,0)": (0.6364, 1.0864),
        "(0,0)": (0.7106, 0.3793),
        "(1,1)": (0.7106, 0.3793),
        "(0,1)": (0.7778, -0.3278),
    },
}


def test_corners_are_those_on_paper(board: Leaderboard) -> None:
    for name, by_hand in CORNERS.items():
        rows = {row["corner"]: row for row in rows_of(board, f"{name}: corners")}
        assert rows.keys() == by_hand.keys()
        for corner, (distance, away) in by_hand.items():
            assert rows[corner]["distance"] == pytest.approx(distance, abs=1e-4)
            if name == "valley_a":
                loss = 5e-4 * (away / 0.8) ** 2 + max(abs(away) - 0.8, 0)
            else:
                along = 0.5 if corner in ("(0,0)", "(1,1)") else 0.0
                loss = 5e-3 * along + 5e-6 * away**2 - 1e-4 * away + max(abs(away) - 0.9, 0)
            assert rows[corner]["f"] == pytest.approx(loss, abs=1e-4)


def test_the_corner_that_methods_choose(board: Leaderboard) -> None:
    chosen = {name: rows_of(board, f"{name}: corners")[0] for name in ("valley_a", "valley_b", "valley_c")}
    assert {name: row["corner"] for name, row in chosen.items()} == {
        "valley_a": "(1,1)",
        "valley_b": "(1,0)",
        "valley_c": "(1,0)",
    }
    assert chosen["valley_a"]["chosen by"] == "rtn, gptq"
    assert chosen["valley_c"]["chosen by"] == "rtn, gptq; reversed: rtn, gptq"
    others = [row for name in chosen for row in rows_of(board, f"{name}: corners")[1:]]
    assert all(row.get("chosen by") is None for row in others)


def test_corners_of_one_loss_are_told_apart(board: Leaderboard) -> None:
    rows = {row["corner"]: row for row in rows_of(board, "valley_b: corners")}
    assert rows["(1,0)"]["f"] == pytest.approx(rows["(0,1)"]["f"], rel=1e-9)
    assert (rows["(1,0)"]["chosen by"], rows["(0,1)"]["chosen by"]) == ("rtn; noise: rtn", None)


def test_a_method_at_no_corner_is_named(held: Held) -> None:
    records, expected = held
    moved = changed(records, "valley_b", "rtn", {"metrics": {"loss/landscape": 0.5}})
    assert sheet_of(leaderboard(moved, expected), "valley_b: corners").says.endswith("at no corner: rtn (f .5)")


def test_first_entries_and_their_bounds(board: Leaderboard) -> None:
    firsts = {"valley_a": {0.02: 25, 0.05: 10, 0.1: 5}, "valley_c": {0.02: 4, 0.05: 2, 0.1: 1}}
    before = {"valley_a": {0.02: 128, 0.05: 62, 0.1: 50}}
    for name, by_hand in firsts.items():
        rows = {row["rate"]: row for row in rows_of(board, f"{name}: trainings") if row["training"] == "ste_qat"}
        for rate, first in by_hand.items():
            assert rows[rate]["entry"] == Span(first, first)
            assert rows[rate]["late inside"] == 1
            bound = rows[rate]["bound"]
            assert isinstance(bound, Span) and first <= bound.low <= rows[rate]["before"]  # type: ignore[operator]
        for rate, bound in before.get(name, {}).items():
            assert rows[rate]["before"] == pytest.approx(bound, abs=0.6)


def test_the_bounds_are_those_of_the_claim(board: Leaderboard, held: Held) -> None:
    for name in ("valley_a", "valley_c"):
        (claim,) = [one for one in judge(held[0], held[1]) if (one.claim, one.model) == ("T1", name)]
        rows = [row for row in rows_of(board, f"{name}: trainings") if row["training"] == "ste_qat"]
        shares = [row["entry"].low / row["bound"].low for row in rows]  # type: ignore[union-attr]
        assert claim.numbers["largest_share_of_bound"].mean == pytest.approx(max(shares))


def test_latent_gradients_move_nothing_and_their_rates_share_a_row(board: Leaderboard) -> None:
    for name in ("valley_a", "valley_c"):
        (row,) = [row for row in rows_of(board, f"{name}: trainings") if row["training"] == "latent_grad"]
        rounded = rows_of(board, f"{name}: corners")[0]
        assert (row["rate"], row["entry"]) == (Span(0.05, 0.1), Span(math.inf, math.inf))
        assert (row["f end"], row["late inside"]) == (pytest.approx(rounded["f"]), 0)


def test_where_the_basin_is_too_narrow_nothing_is_promised(board: Leaderboard) -> None:
    quiet, noisy = rows_of(board, "valley_b: trainings")
    assert (quiet["entry"], quiet["bound"], quiet["before"]) == (Span(math.inf, math.inf), "none", "none")
    # The theorem does not speak of noise, with which training may get in.
    assert (noisy["noise"], noisy["bound"], noisy["before"]) == (0.3, None, None)
    assert isinstance(noisy["entry"], Span) and noisy["entry"].high < math.inf


def rounded_by_hand(step: float, seed: int) -> float:
    """Return ``|z_F|`` of nearest rounding, the landscape drawn here anew."""
    chance = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(chance.standard_normal((256, 256)))
    river, flat, along = 3 * chance.standard_normal(256), basis[:, 64:128], chance.standard_normal(64)
    start = river + 0.6 * flat @ (along / np.linalg.norm(along))
    return float(np.linalg.norm((step * np.round(start / step) - river) @ flat))


def test_ends_of_many_weights(board: Leaderboard) -> None:
    rows = rows_of(board, "river_valley: ends")
    assert [row["/compat"] for row in rows] == pytest.approx(ROUNDED)
    for row, share in zip(rows, ROUNDED, strict=True):
        away = [rounded_by_hand(share * COMPATIBLE, seed) for seed in range(2)]
        end = row["rtn"]
        assert isinstance(end, Point) and end.distance == pytest.approx(sum(away) / 2, rel=1e-5)
        assert row["/exit"] == pytest.approx(share / 0.8)  # sqrt(1 - r0^2) = .8
        assert row["rtn !"] == f"{sum(z > 1 for z in away)}/2"
        assert end.outside == (sum(away) / 2 > 1)
        assert isinstance(row["qubo"], Point) and row["qubo"].outside == (share > 0.5)
    assert [isinstance(row["oracle qubo"], Point) for row in rows] == [False, True, False]
    oracle = rows[1]["oracle qubo"]
    assert isinstance(oracle, Point) and not oracle.outside


def test_the_exit_of_rounding(board: Leaderboard) -> None:
    squares = [
        math.sqrt(sum(rounded_by_hand(share * COMPATIBLE, seed) ** 2 for seed in range(2)) / 2) for share in ROUNDED
    ]
    after = next(at for at, away in enumerate(squares) if away > 1)
    ends = np.log(squares[after - 1 : after + 1])
    left = math.exp(np.interp(0, ends, np.log(ROUNDED[after - 1 : after + 1]))) * COMPATIBLE
    told = f"exit of rtn at {digits(left)} (2 seeds), {digits(left / (0.8 * COMPATIBLE))} of the predicted"
    assert sheet_of(board, "river_valley: ends").says.endswith(told)


def test_entries_of_many_weights(board: Leaderboard, held: Held) -> None:
    rows = rows_of(board, "river_valley: entries")
    says = "0 of 0 first entries are under their bound; 1 other row begins and stays inside"
    assert sheet_of(board, "river_valley: entries").says == says  # errors are too long for a promise
    for row, share in zip(rows, ROUNDED[1:], strict=True):
        paths = [
            record.traces["trajectory/valley/normal_distance"]
            for record in held[0]
            if record.axes["model"] == "river_valley"
            and str(record.axes["method"]).startswith("ste_qat")
            and record.key["quantizer"]["options"]["step"] == share * COMPATIBLE
        ]
        firsts = [next((at for at, z in enumerate(path) if z <= 1), math.inf) for path in paths]
        assert row["first entry"] == Span(min(firsts), max(firsts))
        assert row["began outside"] == f"{sum(path[0] > 1 for path in paths)}/2"
        assert row["end inside"] == sum(path[-1] <= 1 for path in paths) / 2


def test_a_first_entry_under_its_bound(board: Leaderboard) -> None:
    name = "river_valley[visible=0,offset=0.8]: entries"
    (row,) = rows_of(board, name)
    assert (row["first entry"], row["under"]) == (Span(9, 9), "1/1")
    assert isinstance(row["bound"], Span) and row["bound"].low == pytest.approx(158, abs=0.5)
    assert sheet_of(board, name).says == "1 of 1 first entries are under their bound"


def test_a_mean_needs_all_seeds(held: Held) -> None:
    records, expected = held
    at = next(
        record.label
        for record in records
        if record.axes["model"] == "river_valley" and record.axes["method"] == "qubo" and record.axes["seed"] == 1
    )
    left = leaderboard([record for record in records if record.label != at], expected)
    values = [row["qubo"] for row in rows_of(left, "river_valley: ends")]
    assert "1/2 seeds" in values and sum(isinstance(value, Point) for value in values) == 2
    assert sheet_of(left, "landscapes: not shown").rows == (("river_valley", "qubo", "no record", 1),)


def test_a_training_with_a_missing_seed_has_no_numbers(held: Held) -> None:
    records, expected = held
    more = [{**axes, "seed": 1} for axes in expected if "learning_rate=0.02" in str(axes["method"])]
    found = leaderboard(records, [*expected, *more])
    row = next(row for row in rows_of(found, "valley_a: trainings") if row["rate"] == 0.02)
    assert (row["seeds"], row["entry"], row["f end"]) == ("1/2 seeds", None, None)


def test_a_layer_that_fell_back_speaks_for_no_method(held: Held) -> None:
    records, expected = held
    layer = next(record.layers[0] for record in records if record.layers)
    fell = {"layers": [layer.model_copy(update={"fallback": "rtn: no inverse"})]}
    found = leaderboard(changed(records, "valley_a", "gptq[act_order=false]", fell), expected)
    assert rows_of(found, "valley_a: corners")[0]["chosen by"] == "rtn"
    left = (("valley_a", "gptq[act_order=false]", "a layer fell back", 1),)
    assert sheet_of(found, "landscapes: not shown").rows == left


def test_what_failed_is_told(held: Held) -> None:
    records, expected = held
    broken = {"status": "failed", "reason": "no inverse", "metrics": {}, "documents": []}
    found = leaderboard(changed(records, "valley_a", "gptq[act_order=false]", broken), expected)
    assert rows_of(found, "valley_a: corners")[0]["chosen by"] == "rtn"
    assert sheet_of(found, "landscapes: not shown").rows == (("valley_a", "gptq[act_order=false]", "failed", 1),)
    assert "(1) failed, 1 cell: no inverse" in render_text(found)


def test_without_corners_the_ordinary_tables_stay(held: Held) -> None:
    records, expected = held
    found = leaderboard([record for record in records if not record.is_probe], expected)
    text = render_text(found)
    assert "== valley_a/lattice" in text and "== valley_a: trainings ==" in text
    assert "== river_valley/lattice" not in text


def test_networks_are_shown_as_before(held: Held, make_record: MakeRecord) -> None:
    networks = [make_record("m/fp/s0"), make_record("m/mse/2b/rtn/s0", 0.9), make_record("m/mse/4b/rtn/s0", 0.1)]
    alone = leaderboard(networks)
    assert alone.landscapes == ()
    both = leaderboard([*held[0], *networks], [*held[1], *(record.axes for record in networks)])
    assert both.summary == alone.summary
    for render, body in ((render_text, "== m/mse =="), (render_markdown, "## m/mse")):
        shown = render(alone)
        table = shown[shown.index(body) :].split("\n\n")[: 3 if render is render_text else 5]
        assert all(part in render(both) for part in table)
        assert "valley_a/lattice" not in render(both) and "valley_a: corners" in render(both)


def test_every_line_fits(board: Leaderboard) -> None:
    assert max(map(len, render_text(board).splitlines())) <= 80


def test_json_is_strict_and_keeps_every_digit(board: Leaderboard) -> None:
    found = json.loads(json.dumps(board.to_json(), allow_nan=False))["landscapes"]
    (corners,) = [one for one in found if one["title"] == "valley_c: corners"]
    assert corners["rows"][0][corners["columns"].index("f")] == pytest.approx(0.18629, abs=5e-6)
    (trained,) = [one for one in found if one["title"] == "valley_b: trainings"]
    assert trained["rows"][0][trained["columns"].index("entry")] == {"low": "Infinity", "high": "Infinity"}


def test_the_order_of_records_does_not_matter(held: Held, board: Leaderboard) -> None:
    assert leaderboard(random.Random(0).sample(held[0], len(held[0])), held[1]).landscapes == board.landscapes

"""A diagnosis in words: every answer is told once, tables fit the terminal, and JSON has what they are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from qbench.claims.regimes import Basin
from qbench.diagnosis.correction import METHODS, Correction
from qbench.diagnosis.depth import depth
from qbench.diagnosis.forecast import Ladder, ladder
from qbench.diagnosis.layers import LayerLoss
from qbench.diagnosis.mixed import Mixture
from qbench.diagnosis.outcome import Measured, Outcome, Place
from qbench.diagnosis.reading import Depths, Reading
from qbench.report import diagnosis

BASIN = Basin(0.05, headroom=4.0)
PLACE: Place = ("llama-1m", "mse[per_channel]", "keep", 0)
LOST = {8: 1e-4, 4: 0.02, 3: 0.3, 2: 5.0}
WAYS = {"rtn": Measured("rtn", 0.31, 0.01, 1.0), "gptq": Measured("gptq", 0.11, 0.01, 1.0)}
MEASURED = {(PLACE, 3): Outcome(BASIN, WAYS)}


def rungs(lost: Mapping[int, float] = LOST, place: Place = PLACE, spread: float = 0.0) -> Ladder:
    corrections = {method: Correction(1.0, spread, 0.2 if method == "qat" else 0.0) for method in METHODS}
    held = [
        Reading(
            *(place[0], place[1], place[2], bits, place[3], BASIN, 1.1 * 2.0**-bits, 0.0),
            matched=Depths(depth(excess, BASIN.tolerance), 0.0),
            second_order=Depths(depth(0.1 * excess, BASIN.tolerance), 0.0),
            layers={"up": (4.0, 0.1)},
            tokens=1000.0,
            passes=5.0,
            seconds=1.0,
        )
        for bits, excess in lost.items()
    ]
    return ladder(held, corrections)


def test_the_verdict_tells_all_bits_once() -> None:
    assert diagnosis.verdict(rungs()) == (
        "PTQ is enough at 8 and 4 bits; PTQ with second-order rounding at 3 bits; hopeless at this grid at 2 bits"
    )
    assert diagnosis.verdict(rungs({8: 0.0, 6: 0.0, 1: 0.0})) == "PTQ is enough at 8, 6 and 1 bits"
    assert diagnosis.verdict(rungs({1: 0.0})) == "PTQ is enough at 1 bit"


def test_the_title_says_where_and_what_counts() -> None:
    assert diagnosis.title(PLACE, rungs()) == (
        "llama-1m on mse[per_channel], seed 0: inside to D = .050, failed from .500 nats"
    )
    assert ", bn recalibrate, seed 3:" in diagnosis.title(("m", "q", "recalibrate", 3), rungs())


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_table_fits_and_has_a_line_for_each_bitwidth(width: int, spread: float) -> None:
    text = diagnosis.forecasts(PLACE, rungs(spread=spread), MEASURED, 1000, width)
    assert max(map(len, text.splitlines())) <= width
    for bits in LOST:
        assert re.search(rf"^ +{bits} ", text, re.MULTILINE)
    assert "measured" in text and ".110 gptq" in text
    assert ("?" in text) == (spread > 0)
    assert "measured" not in diagnosis.forecasts(PLACE, rungs(), {}, 1000, width)


def test_layers_that_cost_most_come_first_with_their_parts() -> None:
    layers = [LayerLoss(f"l{at}", 10.0, 0.1, float(at)) for at in range(8)]
    lines = diagnosis.layer_table(layers, 3).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["l7", "l6", "l5", "l4", "l3"]
    assert "25 %" in lines[2] and "12 %" in lines[2]
    assert "0 %" in diagnosis.layer_table([LayerLoss("up", 1.0, 0.1, 0.0)], 3)


def test_a_mixture_names_its_layers_by_bits() -> None:
    found = Mixture({f"model.layers.{at}.mlp.down_proj": 4 if at < 8 else 2 for at in range(9)}, 3.78, 0.12)
    text = diagnosis.mixture_lines(found, {3: 0.3, 4: 0.1}, 80)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert words.startswith("mixed precision, 3.78 bits a weight in the mean: 4 bits, 8 layers: ")
    assert "and 2 more (--json has all) 2 bits, 1 layer: model.layers.8.mlp.down_proj" in words
    assert "add up to D = .120, .300 at 3 bits for all, .100 at 4 bits for all (rounding to nearest)" in words


def test_json_has_what_the_table_is_made_of() -> None:
    held = rungs()
    found = diagnosis.to_json(PLACE, held, MEASURED)
    assert (found["model"], found["quantizer"], found["bn"], found["seed"]) == PLACE
    assert found["failing_bits"] == {method: held.failing(method) for method in METHODS}
    rows = found["bits"]
    assert isinstance(rows, list)
    assert [(row["bits"], row["answer"], row["sure"]) for row in rows] == [
        (row.reading.bits, row.answer, row.sure) for row in held.rows
    ]
    assert [set(row["measured"]) for row in rows] == [set(), set(), {"rtn", "gptq"}, set()]
    assert rows[2]["stand_ins"] == pytest.approx({"matched": 0.3, "second_order": 0.03})


def test_notes_tell_of_measurements_where_there_are_some() -> None:
    for measured in (True, False):
        told = diagnosis.notes(80, families=["llama", "vit"], measured=measured)
        assert max(map(len, told.splitlines())) <= 80
        assert ("measured: " in told) is measured
        assert "fitted on llama, vit: docs/diagnose.md" in " ".join(told.split())

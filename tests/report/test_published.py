"""A run beside published numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from qbench.report.leaderboard import leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.published import Published, beside_published
from qbench.report.text import WIDTH, render_text
from qbench.store.record import Record
from qbench.suite.xref import Xref

MakeRecord = Callable[..., Record]
PPL = "perplexity/blocks128"


def row(**options: Any) -> Xref:
    return Xref.model_validate({"model": "m", "metric": PPL, "value": 20, "source": "a table", **options})


def quantized(**options: Any) -> Xref:
    return row(quantizer="mse", bits=2, method="rtn", **options)


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    made = [make_record(f"m/fp/s{seed}") for seed in range(2)]
    return made + [make_record(f"m/mse/2b/rtn/s{seed}", 0.5 + 0.1 * seed) for seed in range(2)]


def one(records: list[Record], xref: Xref) -> Published:
    (found,) = beside_published(records, [xref])
    return found


def test_the_mean_over_seeds_is_compared(records: list[Record]) -> None:
    full = records[0].metrics[PPL]
    found = one(records, quantized(value=full * math.exp(0.5)))
    mean = full * (math.exp(0.5) + math.exp(0.6)) / 2
    assert found.here == pytest.approx(mean)
    assert found.seeds == 2
    assert found.quotient == pytest.approx(mean / (full * math.exp(0.5)))
    assert found.verdict == "differs"
    assert one(records, quantized(value=full * math.exp(0.5), within=0.06)).verdict == "agrees"


def test_it_may_be_off_as_far_in_both_directions(records: list[Record]) -> None:
    full = records[0].metrics[PPL]
    for factor, verdict in ((1.049, "agrees"), (1 / 1.049, "agrees"), (1.051, "differs"), (1 / 1.051, "differs")):
        assert one(records, row(value=full * factor)).verdict == verdict


def test_a_ratio_takes_other_text_out(records: list[Record]) -> None:
    found = one(records, quantized(value=10 * math.exp(0.55), fp=10, compare="ratio"))
    assert found.verdict == "agrees"
    assert one(records, quantized(value=10 * math.exp(0.55), fp=10)).verdict == "differs"


def test_what_is_missing_or_not_clean_has_no_number(records: list[Record], make_record: MakeRecord) -> None:
    assert one(records[:1], quantized()).verdict == "no number here"
    assert one(records, row(metric="perplexity/gptq2048")).verdict == "no number here"
    fallen = make_record("m/mse/2b/rtn/s1", 0.6, fallback="rtn: indefinite")
    assert one([*records[:3], fallen], quantized()).verdict == "no number here"
    assert one(records[2:], quantized(fp=10, compare="ratio")).verdict == "no number here"


def test_all_pages_show_it(records: list[Record]) -> None:
    xref = [quantized(source="Someone (2020), table 3", note="other calibration text"), row(source="Someone else")]
    board = leaderboard(records, xref=xref)
    for page in (render_text(board), render_markdown(board)):
        assert "eside published numbers" in page
        assert "[1] Someone (2020), table 3; other calibration text" in page
        assert "differs" in page
    assert max(map(len, render_text(board).splitlines())) <= WIDTH
    said = json.loads(json.dumps(board.to_json()))["published"]
    assert [one["verdict"] for one in said] == [one.verdict for one in board.published]
    assert "published" not in render_text(leaderboard(records))

"""Quantizers side by side: who stands where, and what stands for what is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qbench.report.leaderboard import leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.side_by_side import side_by_side
from qbench.report.text import render_text
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


def records(make_record: MakeRecord) -> list[Record]:
    losses = {
        ("absmax", 2, "rtn"): 1.7,
        ("absmax", 2, "gptq"): 1.2,
        ("nf", 2, "rtn"): 0.9,
        ("nf", 2, "gptq"): 1.5,
        ("mse", 2, "rtn"): 1.0,
        ("mse", 2, "gptq"): 0.5,
        ("absmax", 4, "rtn"): 0.03,
    }
    found = [make_record("m/fp/s0")]
    for (quantizer, bits, method), value in losses.items():
        found.append(make_record(f"m/{quantizer}/{bits}b/{method}/s0", value))
    found.append(make_record("m/mx/2b/rtn/s0", status="failed", reason="off the grid"))
    return found


def expected(found: list[Record]) -> list[dict[str, Any]]:
    skipped = {"model": "m", "quantizer": "mx", "method": "gptq", "seed": 0}
    return [
        *({**record.axes, "skip": None} for record in found),
        {**skipped, "bits": 2, "skip": None},
        {**skipped, "bits": 4, "skip": "no grid of 4 bits"},
    ]


def test_the_best_comes_first_and_nothing_is_hidden(make_record: MakeRecord) -> None:
    found = records(make_record)
    ((model, tables),) = side_by_side(leaderboard(found, expected(found)))
    assert model == "m"
    # At 4 bits one quantizer is left: there is nothing to set side by side.
    (table,) = tables
    assert table.headers == ["2 bits", "eff.bits", "rtn", "gptq"]
    assert table.rows == [
        ["mse", "2.25", "+1.00", "+.500"],
        ["nf", "2.25", "+.900", "+1.50"],
        ["absmax", "2.25", "+1.70", "+1.20"],
        ["mx", "-", "failed (1)", "missing"],
    ]


def test_a_grid_that_there_is_not_is_not_unknown(make_record: MakeRecord) -> None:
    found = [make_record("m/fp/s0"), make_record("m/mx/4b/rtn/s0", 0.01)]
    there = [{**record.axes, "skip": None} for record in found]
    skipped = [{**found[1].axes, "bits": bits, "skip": "no such grid"} for bits in (3, 2)]
    (line,) = leaderboard(found, [*there, *skipped]).summary
    assert line == "m/mx: rtn inside down to 4 bits; at 4 bits best PTQ rtn +.010"
    assert leaderboard(found[:1], [there[0], *skipped]).summary == ("m/mx: rtn skipped",)


def test_one_quantizer_has_no_such_table(make_record: MakeRecord) -> None:
    found = [record for record in records(make_record) if record.axes["quantizer"] in (None, "absmax")]
    board = leaderboard(found)
    assert side_by_side(board) == []
    assert "side by side" not in render_text(board) and "side by side" not in render_markdown(board)


def test_quantizers_without_bits_in_common_have_no_such_table(make_record: MakeRecord) -> None:
    found = [make_record("m/fp/s0"), make_record("m/mse/3b/rtn/s0", 0.1), make_record("m/nf/2b/rtn/s0", 0.2)]
    board = leaderboard(found)
    assert side_by_side(board) == []
    assert "side by side" not in render_text(board) and "side by side" not in render_markdown(board)


def test_classifiers_are_ordered_by_accuracy(make_image_record: MakeRecord) -> None:
    found = [make_image_record("m/fp/s0")]
    for quantizer, method, excess, accuracy in (
        ("absmax", "rtn", 0.3, 0.912),
        ("absmax", "gptq", 0.2, 0.935),
        ("mse", "rtn", 0.1, 0.93),
        ("mse", "gptq", 0.4, 0.9),
        ("nf", "rtn", 0.5, 0.935),
    ):
        found.append(make_image_record(f"m/{quantizer}/2b/{method}/s0", excess, accuracy))
    found.append(make_image_record("m/mx/2b/rtn/s0", status="failed", reason="off the grid"))
    board = leaderboard(found, [record.axes for record in found])
    ((_, (table,)),) = side_by_side(board)
    assert table.rows == [
        ["absmax", "2.25", "91.2 % +.300", "93.5 % +.200"],
        ["nf", "2.25", "93.5 % +.500", ""],
        ["mse", "2.25", "93.0 % +.100", "90.0 % +.400"],
        ["mx", "-", "failed (1)", ""],
    ]
    assert "side by side: of images accuracy, and D, the best row first" in render_text(board)


def test_both_pages_hold_it(make_record: MakeRecord) -> None:
    board = leaderboard(records(make_record))
    assert "== m: quantizers side by side ==" in render_text(board)
    assert "## m: quantizers side by side" in render_markdown(board)
    assert "A grid of more bits is no better grid." in render_text(board).replace("\n    ", " ")

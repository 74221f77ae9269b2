"""Accuracy in the leaderboard: before the loss, in percent, against full precision of the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qbench.claims.statistics import accuracy_change
from qbench.report.layout import tables
from qbench.report.leaderboard import leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.numbers import points, signed_points
from qbench.report.text import render_text
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


@pytest.fixture
def records(make_image_record: MakeRecord) -> list[Record]:
    """Return three seeds that differ in full precision, 1, 2 and 3 points below it at 2 bits."""
    found = []
    for seed in range(3):
        found.append(make_image_record(f"m/fp/s{seed}", accuracy=0.95 + 0.01 * seed))
        found.append(make_image_record(f"m/mse/2b/rtn/s{seed}", 0.4, 0.94))
    return found


def test_the_change_is_paired_by_seed(records: list[Record]) -> None:
    pairs = [(records[2 * seed + 1], records[2 * seed]) for seed in range(3)]
    change = accuracy_change(pairs)
    assert change is not None
    assert change.mean == pytest.approx(-0.02)
    # Of three seeds, the worst or the best is drawn three times in one resample of 27.
    assert (change.low, change.high) == (pytest.approx(-0.03), pytest.approx(-0.01))
    assert change.covers == "seeds"
    alone = accuracy_change(pairs[1:2])
    assert alone is not None and (alone.mean, alone.low, alone.high) == (pytest.approx(-0.02), None, None)


def test_accuracy_comes_first(records: list[Record]) -> None:
    (group,) = leaderboard(records).groups
    first, second, third, details = tables(group)
    assert [table.headers[0] for table in (first, second, third)] == ["accuracy %", "loss", "regime"]
    assert first.rows == [["fp", "96.0"], ["rtn", "94.0 -2.0 [-3.0,-1.0]"]]
    assert [row[details.headers.index("acc %")] for row in details.rows] == ["96.0", "94.0"]
    assert not {"ppl", "acc", "bn"} & set(details.headers)


def test_one_seed_has_no_interval(records: list[Record]) -> None:
    (group,) = leaderboard(records[:2]).groups
    assert tables(group)[0].rows == [["fp", "95.0"], ["rtn", "94.0 -1.0"]]


def test_what_is_not_there_is_shown_as_in_the_grid_of_losses(
    records: list[Record], make_image_record: MakeRecord
) -> None:
    expected = [record.axes for record in records]
    failed = make_image_record("m/mse/2b/rtn/s0", status="failed", reason="out of memory")
    board = leaderboard([failed, *records[2:5]], expected)
    accuracy, loss, *_ = tables(board.groups[0])
    assert accuracy.rows == [["fp", "2/3 seeds, 1 missing"], ["rtn", "1/3 seeds, 1 failed, 1 missing (1)"]]
    assert loss.rows == accuracy.rows


def test_a_classifier_of_which_all_failed_is_still_one(make_image_record: MakeRecord) -> None:
    (group,) = leaderboard([make_image_record("m/mse/2b/rtn/s0", status="failed", reason="off the grid")]).groups
    assert tables(group)[0].headers[0] == "accuracy %"


def test_chance_and_units_are_told(records: list[Record], make_record: MakeRecord) -> None:
    board = leaderboard(records)
    assert "chance: 10.0 %, loss 2.303" in render_text(board)
    assert "- chance: 10.0 %, loss 2.303" in render_markdown(board)
    assert "excess loss: D over the loss of fp, nats an image, mean over seeds" in render_text(board)
    language = leaderboard([make_record("llama/fp/s0"), make_record("llama/mse/2b/rtn/s0", 0.1)])
    assert not any(word in render_markdown(language) for word in ("accuracy", "image", "chance:"))
    both = render_text(leaderboard([*records, make_record("llama/fp/s0"), make_record("llama/mse/2b/rtn/s0", 0.1)]))
    assert "nats a token, or an image, mean over seeds" in " ".join(both.split())
    assert both.count("accuracy %") == 1


def test_batch_norm_is_told_in_every_row(make_image_record: MakeRecord) -> None:
    told = {"rtn": "keep", "rtn[bn=fold]": "fold", "ste_qat": "update"}
    found = [make_image_record("m/fp/s0")]
    found += [make_image_record(f"m/mse/2b/{method}/s0", 0.1, bn=bn) for method, bn in told.items()]
    board = leaderboard(found)
    details = tables(board.groups[0])[-1]
    assert details.headers[:3] == ["bits", "method", "bn"]
    assert {row[1]: row[2] for row in details.rows} == {"fp": "", **told}
    assert "bn: what batch norm normalises by." in render_text(board)
    assert "9 batch norms" in render_text(board) and "- batch norm layers: 9" in render_markdown(board)


def test_the_summary_tells_accuracies(make_image_record: MakeRecord) -> None:
    found = [
        make_image_record("m/fp/s0", accuracy=0.984),
        make_image_record("m/mse/2b/rtn/s0", 2.0, 0.2),
        make_image_record("m/mse/2b/gptq/s0", 0.5, 0.9),
        make_image_record("m/mse/2b/lsq/s0", 0.02, 0.98),
    ]
    assert leaderboard(found).summary == (
        "m/mse (fp 98.4 %): rtn failed at 2; at 2 bits best PTQ gptq +.500 (90.0 %, G .75), "
        "best QAT lsq +.020 (98.0 %, G .99)",
    )


def test_an_ablation_is_not_the_best_qat(make_image_record: MakeRecord) -> None:
    found = [make_image_record("m/fp/s0"), make_image_record("m/mse/2b/rtn/s0", 2.0, 0.2)]
    for method, excess in {"lsq": 0.02, "ft_then_ptq": 0.01, "latent_grad[steps=9]": 0.001}.items():
        record = make_image_record(f"m/mse/2b/{method}/s0", excess, 0.98)
        record.cost.train_tokens = 640
        found.append(record)
    (line,) = leaderboard(found).summary
    assert "best QAT lsq +.020" in line and "best PTQ rtn" in line


def test_json_has_it(records: list[Record]) -> None:
    data = leaderboard(records).to_json()
    row = data["groups"][0]["rows"]["rtn"]
    entry = next(iter(row.values()))
    assert entry["metrics"]["accuracy/top1"] == pytest.approx(0.94)
    assert entry["accuracy_change"]["mean"] == pytest.approx(-0.02)
    assert data["groups"][0]["facts"]["chance_accuracy"] == "0.1"
    assert json.loads(json.dumps(data, allow_nan=False))["suite"] == "tiny"


@pytest.mark.parametrize(
    ("share", "text", "signed"),
    [(-0.0134, "-1.3", "-1.3"), (0.0091, ".9", "+.9"), (-0.0002, ".0", "+.0"), (0.832, "83.2", "+83.2")],
)
def test_points(share: float, text: str, signed: str) -> None:
    assert (points(share), signed_points(share)) == (text, signed)

"""How much of a loss is batch norm's: the share that estimating its statistics again does away with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qbench.report.batch_norm import without_recalibration
from qbench.report.leaderboard import leaderboard
from qbench.report.text import render_text
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


@pytest.mark.parametrize(
    ("label", "plain"),
    [
        ("rtn[bn=recalibrate]", "rtn"),
        ("gptq[bn=recalibrate,percdamp=0.1]", "gptq[percdamp=0.1]"),
        ("lsq[steps=5,bn=recalibrate]", "lsq[steps=5]"),
        ("lsq[rate=1,bn=recalibrate,steps=5]", "lsq[rate=1,steps=5]"),
        ("rtn", None),
        ("rtn[bn=fold]", None),
        ("rtn[bn=recalibrated]", None),
        ("rtn[other_bn=recalibrate]", None),
    ],
)
def test_the_twin_of_a_recalibrated_method(label: str, plain: str | None) -> None:
    assert without_recalibration(label) == plain


@pytest.fixture
def records(make_image_record: MakeRecord) -> list[Record]:
    """Return a model that rounding ruins, two seeds: most of it batch norm's doing at 3 bits, half of it at 2."""
    rows = {
        ("rtn", 4): (0.01, 0.983),
        ("rtn[bn=recalibrate]", 4): (0.002, 0.984),
        ("rtn", 3): (1.0, 0.7),
        ("rtn[bn=recalibrate]", 3): (0.05, 0.98),
        ("rtn", 2): (2.0, 0.152),
        ("rtn[bn=recalibrate]", 2): (1.0, 0.731),
        ("gptq[bn=recalibrate]", 2): (0.5, 0.8),
        ("ste_qat", 2): (0.01, 0.983),
        ("lsq", 2): (0.3, 0.9),
    }
    found = [make_image_record(f"m/fp/s{seed}") for seed in range(2)]
    for (method, bits), (excess, accuracy) in rows.items():
        bn = "recalibrate" if "bn=" in method else "keep"
        found += [
            make_image_record(f"m/mse/{bits}b/{method}/s{seed}", excess * (1 + 0.2 * seed), accuracy, bn=bn)
            for seed in range(2)
        ]
    return found


def test_what_is_explained_what_is_left_and_what_training_reaches(records: list[Record]) -> None:
    board = leaderboard(records, [record.axes for record in records])
    assert board.summary[1:] == (
        "m/mse: of rtn's excess batch-norm statistics explain .95 [.95,.95] at 3 bits (70.0 % -> 98.0 % of 98.4 %; "
        "+.055 left), .50 [.50,.50] at 2 bits (15.2 % -> 73.1 % of 98.4 %; +1.10 left; ste_qat brings it to 98.3 %)",
    )
    assert board.summary[1] in render_text(board).replace("\n    ", " ")


def test_the_share_is_the_recovery_of_the_same_rows(records: list[Record]) -> None:
    (group,) = leaderboard(records).groups
    assert {one.bits: one.share for one in group.recalibrations} == {
        bits: group.rows["rtn[bn=recalibrate]"][bits].recovered for bits in (3, 2)
    }


def test_nothing_is_explained_of_what_is_not_whole(records: list[Record], make_image_record: MakeRecord) -> None:
    label = "m/mse/2b/rtn[bn=recalibrate]/s1"
    expected = [record.axes for record in records]
    (group,) = leaderboard([record for record in records if record.label != label], expected).groups
    assert [one.bits for one in group.recalibrations] == [3]


def test_another_method_than_rounding_is_read_against_itself(
    records: list[Record], make_image_record: MakeRecord
) -> None:
    records += [make_image_record(f"m/mse/2b/gptq/s{seed}", 0.8 * (1 + 0.2 * seed), 0.6) for seed in range(2)]
    (group,) = leaderboard(records).groups
    shares = {one.method: one.share.mean for one in group.recalibrations if one.bits == 2}
    assert shares == {"rtn": pytest.approx(0.5), "gptq": pytest.approx(1 - 0.5 / 0.8)}


def test_rounding_without_options_is_what_others_are_measured_against(records: list[Record]) -> None:
    backwards = [record.axes for record in records if "bn=" in str(record.axes["method"])]
    backwards += [record.axes for record in records if record.axes not in backwards]
    (group,) = leaderboard(records, backwards).groups
    assert next(iter(group.rows)) == "rtn[bn=recalibrate]"
    assert group.rows["rtn"][2].recovered is None
    recovered = group.rows["ste_qat"][2].recovered
    assert recovered is not None and recovered.mean == pytest.approx(1 - 0.01 / 2.0)

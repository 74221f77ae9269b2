"""The leaderboard: nothing is averaged that is not whole, and nothing is left out."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.report.entries import Entry
from qbench.report.leaderboard import Leaderboard, leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.text import WIDTH, render_text
from qbench.store.record import Cost, Record

MakeRecord = Callable[..., Record]

METHODS = {"rtn": 0.9, "gptq": 0.7, "lsq": 0.2}


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    made = [make_record(f"m/fp/s{seed}") for seed in range(3)]
    for method, excess in METHODS.items():
        for bits, scale in ((8, 0.001), (2, 1.0)):
            made += [
                make_record(f"m/mse/{bits}b/{method}/s{seed}", [excess * scale * (1 + 0.01 * i) for i in range(4)])
                for seed in range(3)
            ]
    return made


def without(records: list[Record], *labels: str) -> list[Record]:
    assert {record.label for record in records} >= set(labels)
    return [record for record in records if record.label not in labels]


def axes_of(records: list[Record]) -> list[dict[str, Any]]:
    return [dict(record.axes) for record in records]


def entry(board: Leaderboard, method: str, bits: int) -> Entry:
    return board.groups[0].rows[method][bits]


def test_a_whole_row(records: list[Record]) -> None:
    row = entry(leaderboard(records), "lsq", 2)
    assert row.complete
    assert row.excess is not None
    assert row.excess.mean == pytest.approx(0.2 * 1.019)
    assert row.regime is not None
    assert row.regime.text == "grey"
    assert row.trained
    assert row.recovered is not None
    assert row.recovered.mean == pytest.approx(1 - 0.2 / 0.9)
    assert row.effective_bits == 2.25


def test_recovery_is_given_only_where_rounding_lost_something(records: list[Record]) -> None:
    board = leaderboard(records)
    assert entry(board, "lsq", 8).recovered is None
    assert entry(board, "rtn", 2).recovered is None
    assert entry(board, "gptq", 2).recovered is not None


def test_no_mean_over_a_row_with_a_missing_seed(records: list[Record]) -> None:
    board = leaderboard(without(records, "m/mse/2b/lsq/s1"), axes_of(records))
    row = entry(board, "lsq", 2)
    assert (row.loss, row.excess, row.regime, row.metrics) == (None, None, None, {})
    assert board.counts["missing"] == 1
    assert "2/3 seeds, 1 missing" in render_text(board)
    assert "2/3 seeds, 1 missing" in render_markdown(board)


def test_no_mean_where_the_reference_is_missing(records: list[Record]) -> None:
    board = leaderboard(without(records, "m/fp/s2"), axes_of(records))
    row = entry(board, "lsq", 2)
    assert row.loss is not None
    assert row.excess is None
    assert "the full-precision cell of a seed is not there" in render_text(board)


def test_a_chosen_part_finds_its_reference(records: list[Record]) -> None:
    board = leaderboard(records, [axes for axes in axes_of(records) if axes["method"] == "lsq"])
    assert entry(board, "lsq", 2).excess is not None
    assert board.counts == {"expected": 6, "ok": 6}
    assert board.left_out == len(records) - 6


@pytest.mark.parametrize("status", ["failed", "diverged", "timeout"])
def test_a_failure_is_shown_with_its_reason(records: list[Record], make_record: MakeRecord, status: str) -> None:
    bad = [make_record(f"m/mse/2b/gptq/s{seed}", status=status, reason="out of | memory") for seed in range(3)]
    board = leaderboard([*without(records, *(record.label for record in bad)), *bad])
    assert board.counts[status] == 3
    text = render_text(board)
    assert f"{status} (1)" in text
    assert f"(1) {status}, 3 cells: out of | memory" in text
    assert "out of \\| memory" in render_markdown(board)


def test_a_loss_that_is_no_number_is_a_divergence(records: list[Record], make_record: MakeRecord) -> None:
    board = leaderboard([*without(records, "m/mse/2b/gptq/s0"), make_record("m/mse/2b/gptq/s0", math.nan)])
    assert "2/3 seeds, 1 diverged (1)" in render_text(board)
    assert entry(board, "gptq", 2).excess is None


def test_a_fallback_is_never_hidden(records: list[Record], make_record: MakeRecord) -> None:
    fell = make_record("m/mse/2b/gptq/s0", 0.1, fallback="rtn: Cholesky failed")
    board = leaderboard([*without(records, fell.label), fell])
    text = render_text(board)
    assert board.counts["fallback"] == 1
    assert "(1 of them with a layer that fell back)" in text
    assert "(1) fallback, 1 cell: rtn: Cholesky failed" in text
    assert "fallbacks" in text
    assert "(a layer fell back)" in leaderboard([*without(records, "m/mse/2b/gptq/s0"), fell]).summary[0]


def test_a_skipped_cell_says_why(records: list[Record]) -> None:
    expected = [{**axes, "skip": "too slow" if axes["method"] == "lsq" else None} for axes in axes_of(records)]
    board = leaderboard([record for record in records if record.axes["method"] != "lsq"], expected)
    assert board.counts["skipped"] == 6
    assert "(1) skipped, 6 cells: too slow" in render_text(board)


def test_records_that_cannot_be_paired_are_a_note(records: list[Record], make_record: MakeRecord) -> None:
    other = make_record("m/mse/2b/gptq/s0", tokens=(1, 2, 3, 4))
    text = render_text(leaderboard([*without(records, other.label), other]))
    assert "(1) not comparable, 1 cell: m/mse/2b/gptq/s0 has other documents than its full-precision cell" in " ".join(
        text.split()
    )


def test_an_older_record_is_counted_not_shown(records: list[Record], make_record: MakeRecord) -> None:
    old = make_record("m/mse/2b/gptq/s0", 5.0, cell_id="old", ended="2020-01-01T00:00:00+00:00")
    board = leaderboard([old, *records])
    assert board.left_out == 1
    assert "1 older or other records not shown" in render_text(board)
    assert render_text(board).split("\n", 1)[1] == render_text(leaderboard(records)).split("\n", 1)[1]


def test_the_order_of_records_does_not_matter(records: list[Record]) -> None:
    expected = axes_of(records)
    assert leaderboard(records[::-1], expected).to_json() == leaderboard(records, expected).to_json()


def test_json_is_strict(records: list[Record], make_record: MakeRecord) -> None:
    documents = make_record("m/mse/2b/gptq/s0", status="failed").documents
    infinite = make_record("m/mse/2b/gptq/s0", documents=documents, metrics={"loss/blocks128": math.inf})
    data = leaderboard([*without(records, infinite.label), infinite]).to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_one_seed_claims_documents_only(records: list[Record]) -> None:
    one = leaderboard([record for record in records if record.axes["seed"] == 0])
    assert "documents only, for rows of one seed" in one.interval
    assert "documents only" not in leaderboard(records).interval


def test_nothing_at_all() -> None:
    assert "0 cells" in render_text(leaderboard([]))
    assert render_markdown(leaderboard([])).startswith("# no records")


def test_a_lone_reference_is_shown(make_record: MakeRecord) -> None:
    text = render_text(leaderboard([make_record("m/fp/s0")]))
    assert "== m ==" in text
    assert "fp" in text


STATES = st.sampled_from(["ok", "failed", "diverged", "timeout", "missing", "skip", "fallback"])


@given(st.lists(st.tuples(st.sampled_from([8, 2]), st.sampled_from(list(METHODS)), STATES), min_size=1, max_size=12))
def test_every_cell_is_named_or_counted(make_record: MakeRecord, chosen: list[tuple[int, str, str]]) -> None:
    states = {(bits, method, seed): state for seed, (bits, method, state) in enumerate(chosen)}
    expected: list[dict[str, Any]] = []
    made = []
    for (bits, method, seed), state in states.items():
        record = make_record(
            f"m/mse/{bits}b/{method}/s{seed}",
            status=state if state in ("failed", "diverged", "timeout") else "ok",
            reason=f"{state} because" if state in ("failed", "diverged", "timeout") else None,
            fallback="Cholesky" if state == "fallback" else None,
        )
        expected.append({**record.axes, "skip": "too slow" if state == "skip" else None})
        made += [record] if state not in ("missing", "skip") else []
    board = leaderboard(made, expected)
    shown = [entry for row in board.groups[0].rows.values() for entry in row.values()]
    assert sum(entry.seeds for entry in shown) == sum(sum(entry.statuses.values()) for entry in shown) == len(expected)
    assert sum(count for name, count in board.counts.items() if name not in ("expected", "fallback")) == len(expected)
    for text in (render_text(board), render_markdown(board)):
        for bits, method, _ in states:
            assert method in text
            assert f"{bits} bits" in text
        for state, kind in (
            ("failed", "failed"),
            ("diverged", "diverged"),
            ("timeout", "timeout"),
            ("skip", "skipped"),
            ("fallback", "fallback"),
        ):
            cells = sum(other == state for other in states.values())
            assert (f"{kind}, {cells} cell" in text) == bool(cells)
        missing = sum(other == "missing" for other in states.values())
        assert (f"{missing} missing" in text.replace("\n    ", " ")) == bool(missing)


def test_every_line_fits_the_terminal(records: list[Record], make_record: MakeRecord) -> None:
    long = "gptq[act_order=true,block_size=64,percdamp=0.1]"
    for bits in (8, 6, 4, 3, 2):
        records += [make_record(f"m/mse/{bits}b/{long}/s{seed}", [1, 2, 30, 4]) for seed in range(3)]
    text = render_text(leaderboard(records))
    assert max(map(len, text.splitlines())) <= WIDTH
    for bits in (8, 6, 4, 3, 2):
        assert f"{bits} bits" in text


def test_reports_start_quickly_and_without_torch() -> None:
    code = (
        "import sys; import qbench.report.text, qbench.report.markdown, qbench.report.comparison;"
        "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_control_stands_beside_full_precision_and_is_read_against_it(make_record: MakeRecord) -> None:
    records = [
        make_record(label, excess)
        for seed in range(2)
        for label, excess in (
            (f"m/fp/s{seed}", 0.0),
            (f"m/fine_tune[steps=20]/s{seed}", -0.02),
            (f"m/mse/2b/rtn/s{seed}", 0.5),
            (f"m/mse/2b/lsq/s{seed}", 0.2),
            (f"m/absmax/2b/rtn/s{seed}", 0.9),
        )
    ]
    board = leaderboard(records)
    assert [group.title for group in board.groups] == ["m/absmax", "m/mse"]
    for group in board.groups:
        (control,) = group.controls.values()
        assert control.excess is not None and control.excess.mean == pytest.approx(-0.02)
        assert control.regime is not None and control.regime.agreed == "inside"
        assert "fine_tune[steps=20]" not in group.rows
    text = render_text(board)
    assert text.count("fine_tune[steps=20]") >= 4 and "trained in full precision" in text
    assert "trained in full precision" not in render_text(leaderboard(r for r in records if "fine" not in r.label))


def test_a_control_that_is_missing_is_counted(make_record: MakeRecord) -> None:
    records = [make_record("m/fp/s0"), make_record("m/mse/2b/rtn/s0", 0.5)]
    axes = {"model": "m", "quantizer": None, "bits": None, "method": "fine_tune", "seed": 0}
    board = leaderboard(records, [*(record.axes for record in records), axes])
    assert board.counts["missing"] == 1
    assert board.groups[0].controls["fine_tune"].statuses == {"missing": 1}


def test_full_precision_that_knows_nothing_gives_no_regime(records: list[Record]) -> None:
    for record in records:
        record.facts["chance_loss"] = 2.0
    board = leaderboard(records)
    row = entry(board, "lsq", 2)
    assert (row.regime, row.recovered) == (None, None)
    assert row.excess is not None
    assert any("m: full precision is no better than chance" in line for line in board.summary)
    assert "inside" not in render_text(board).split("accuracy")[0].split("regime:")[0]


@pytest.mark.parametrize(
    ("method", "is_qat"), [("ste_qat", True), ("lsq[steps=3]", True), ("latent_grad", False), ("own", True)]
)
def test_a_method_that_trains_does_so_where_all_its_cells_failed(
    make_record: MakeRecord, method: str, is_qat: bool
) -> None:
    cost = Cost(train_tokens=100)
    records = [make_record("m/fp/s0"), make_record("m/mse/4b/own/s0", 0.1, cost=cost)]
    records += [make_record(f"m/mse/2b/{method}/s0", status="failed", reason="out of memory", cost=Cost())]
    records += [make_record("m/mse/2b/rtn/s0", status="failed", reason="out of memory", cost=Cost())]
    (group,) = leaderboard(records).groups
    entry = group.rows[method][2]
    assert entry.trained and entry.is_qat == is_qat
    assert not group.rows["rtn"][2].trained


def test_a_grid_that_the_weights_lay_on_already_is_flagged(records: list[Record], make_record: MakeRecord) -> None:
    metrics = {**records[0].metrics, "weight_sqnr_db": math.inf}
    lossless = make_record("m/stored/4b/rtn/s0", 0.0, metrics=metrics)
    (said,) = (line for line in leaderboard([*records, lossless]).summary if "lossless" in line)
    assert said.startswith("m/stored at 4 bits: lossless")
    assert not any("lossless" in line for line in leaderboard(records).summary)

"""A terminal has 80 columns: whatever there is to say fits them, and nothing of it is lost."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbench.report.fitting import WIDTH, fit, flow, noted_table, plain_table, wrap
from qbench.report.layout import Table
from qbench.report.leaderboard import leaderboard
from qbench.report.short_names import explained, shorten
from qbench.report.text import render_text
from qbench.store.record import Record

MakeRecord = Callable[..., Record]

options = st.sampled_from(
    ["steps=200", "batch_size=64", "bn_training=update", "cd_sweeps=5", "group_scales=fresh", "learning_rate=0.0003"]
)
labels = st.builds(
    lambda name, chosen: f"{name}[{','.join(chosen)}]" if chosen else name,
    st.sampled_from(["rtn", "gptq", "ste_qat", "resnet8-fashion", "lattice"]),
    st.lists(options, unique=True, max_size=5),
)
numbers = st.sampled_from(["", "-", "+.541 [.476,.608] (3)", "-.004 [-.004,-.004]", "15.4 -83.1 [-83.2,-83.0]"])
reasons = st.sampled_from(["0/2 seeds, 1 diverged, 1 failed (1)(2)", "skipped (4)", "1/3 seeds, 2 missing"])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    keys = draw(st.integers(1, 2))
    columns = draw(st.integers(1, 9))
    headers = [*(f"key {at}" for at in range(keys)), *(draw(labels) for _ in range(columns))]
    rows = [
        [draw(labels) + f"/{row}" for _ in range(keys)] + [draw(numbers | reasons) for _ in range(columns)]
        for row in range(draw(st.integers(1, 6)))
    ]
    return Table(headers, rows, keys)


@settings(max_examples=150, deadline=None)
@given(tables())
def test_every_table_fits_and_loses_nothing(table: Table) -> None:
    text = fit(table, ["left"] * len(table.headers))
    assert max(map(len, text.splitlines())) <= WIDTH
    # Cells may go on in a second line, at a place where nothing is lost.
    letters = re.sub(r"[\s-]", "", text)
    for row in [table.headers, *table.rows]:
        for cell in row:
            for word in re.findall(r"[^\s,\[\]/-]+", cell):
                assert word in letters, cell


@given(st.lists(labels | st.sampled_from(["and", "of", "a"]), min_size=1, max_size=30), st.integers(40, 100))
def test_lines_fit_and_words_stay_whole_where_they_can(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), width).split("\n")
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == "".join(words)
    told = {part for line in lines for part in line.split()}
    assert all(word in told for word in words if len(word) <= width - 4)


def test_a_name_longer_than_a_line_goes_on_behind_a_comma_or_before_a_bracket() -> None:
    name = "resnet8-fashion[calibration_images=512,evaluation_images=5000,evaluation_seed=17]"
    assert wrap(f"== {name} ==", 60).split("\n") == [
        "== resnet8-fashion[calibration_images=512,",
        "    evaluation_images=5000,evaluation_seed=17] ==",
    ]


def test_a_table_that_fits_is_left_as_it_is() -> None:
    table = Table(["loss", "4 bits"], [["fp", "2.870"], ["lsq", "0/2 seeds, 1 diverged, 1 failed (1)(2)"]], 1)
    assert fit(table, ["left", "left"]) == plain_table(table.headers, table.rows, ["left", "left"])


def test_parts_have_as_many_columns_as_each_other_and_no_empty_rows() -> None:
    rows = [["rtn", *["+.541 [.476,.608]"] * 4], ["lsq", "", "", "+.1", "+.2"]]
    first, second = fit(Table(["loss", *"8432"], rows, 1), ["left"] * 5, 50).split("\n\n")
    assert first.split("\n")[0].split() == ["loss", "8", "4"] and second.split("\n")[0].split() == ["loss", "3", "2"]
    assert "lsq" not in first and "lsq" in second


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(labels, st.text("ab ", max_size=90), labels), min_size=1, max_size=5))
def test_tables_of_words_fit(rows: list[tuple[str, str, str]]) -> None:
    text = flow(("name", "what it is", "of"), rows)
    assert max(map(len, text.splitlines())) <= WIDTH
    letters = "".join(text.split())
    for name, _, _ in rows:
        assert all(word in letters for word in re.findall(r"[^,\[\]]+", name))


def test_the_widest_columns_give_way() -> None:
    lines = flow(["a", "b"], [["rtn", "round to nearest, which knows nothing of the data"]], 30).split("\n")
    assert lines[2:] == ["rtn  round to nearest, which", "     knows nothing of the data"]


def test_a_row_that_is_empty_everywhere_is_not_left_out() -> None:
    assert "lsq" in fit(Table(["loss", "8"], [["lsq", ""]], 1), ["left"] * 2)


def test_notes_stand_below_their_rows() -> None:
    assert noted_table(
        ["verdict", "now"], [["worse", "3.1"], ["failed", "-"]], ["m/rtn/s0", "n/rtn/s0; out of memory"]
    ) == ("verdict  now\n-------  ---\nworse    3.1\n  m/rtn/s0\nfailed     -\n  n/rtn/s0; out of memory")


@given(st.lists(labels, unique=True, max_size=12))
def test_short_names_are_as_distinct_as_the_names(names: list[str]) -> None:
    short = shorten(names)
    assert list(short) == names and len(set(short.values())) == len(names)
    assert all(len(short[name]) <= len(name) for name in names)
    (told,) = explained(short) or [""]
    for name in names:
        # What is left out is told, and nothing else may be meant by what is left.
        assert short[name] == name or f"{short[name]} = {name}" in told
        assert short[name] == name or short[name] not in names


def test_options_that_tell_rows_apart_are_kept() -> None:
    names = [
        "gptq",
        "gptq[cd_sweeps=5,group_scales=fresh]",
        "lsq[steps=200,lr=0.1,x=(1,2)]",
        "lsq[steps=200,lr=0.2,x=(1,2)]",
    ]
    assert list(shorten(names).values()) == [*names[:2], "lsq[lr=0.1,..]", "lsq[lr=0.2,..]"]


@pytest.mark.parametrize("bits", [(8, 4, 3, 2), (2,)])
def test_a_leaderboard_of_long_names_fits(
    make_record: MakeRecord, make_image_record: MakeRecord, bits: tuple[int, ...]
) -> None:
    long = "resnet8-fashion[calibration_images=512,evaluation_images=5000]"
    methods = ["rtn", "gptq[cd_sweeps=5,group_scales=fresh]", "ste_qat[steps=200,batch_size=64,bn_training=update]"]
    methods += ["lsq[bn=recalibrate,steps=200,batch_size=64,bn_training=update]"]
    records = []
    for model, make in ((long, make_image_record), ("llama-1m", make_record)):
        records += [make(f"{model}/fp/s{seed}") for seed in range(2)]
        for width in bits:
            for quantizer in ("mse[per_channel]", "lattice[per_channel,step=0.3394819583,unit=absolute]"):
                for at, method in enumerate(methods):
                    flaw = {"status": "failed", "reason": "x" * 200} if at == 1 else {}
                    records += [make(f"{model}/{quantizer}/{width}b/{method}/s0", -0.3 + at / width, **flaw)]
                    records += [make(f"{model}/{quantizer}/{width}b/{method}/s1", -0.3 + at / width)]
    text = render_text(leaderboard(records, [record.axes for record in records]))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "1/2" in text and "1 failed" in text and "ste_qat[..]" in text
    flat = " ".join(text.split())
    for method in methods[2:]:
        assert f"= {method}" in flat
    assert max(map(len, render_text(leaderboard(records), 120).splitlines())) > WIDTH

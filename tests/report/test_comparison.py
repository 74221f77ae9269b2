"""A comparison in every form, to the letter, and what each form promises whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from qbench.report.blessing import render_change
from qbench.report.comparison import render_comparison
from qbench.report.comparison_cells import fine
from qbench.report.comparison_markdown import MOST_CHARACTERS, MOST_ROWS, marker, render_comparison_markdown
from qbench.report.junit import render_junit
from qbench.store.blessing import Request, prepare
from qbench.store.comparison import Comparison, compare
from qbench.store.gathering import gather
from qbench.store.record import Record
from qbench.store.results import Expected, Results
from qbench.store.verdict import WORST_FIRST, ComparisonRow

MakeRecord = Callable[..., Record]

GOLDEN = Path(__file__).parent / "golden"
FAILED: dict[str, Any] = {"status": "failed", "reason": "out of memory"}


@pytest.fixture(scope="module")
def before(make_record: MakeRecord) -> Results:
    made = [make_record(f"m/fp/s{seed}") for seed in range(2)] + [
        make_record("n/fp/s0"),
        make_record("n/mse/2b/rtn/s0", 1),
    ]
    made += [make_record(f"m/mse/4b/{method}/s0", 0.03, weights_sha256="ab") for method in ("rtn", "gptq", "lsq")]
    made += [make_record(f"m/mse/2b/{method}/s{seed}", 0.6) for method in ("rtn", "gptq", "lsq") for seed in range(2)]
    made += [make_record(f"m/absmax/2b/{method}/s0", 4.0) for method in ("rtn", "gptq", "lsq")]
    made += [make_record(f"m/absmax/1b/{method}/s0", **FAILED) for method in ("gptq", "lsq")]
    results = gather(made)
    for method in ("gptq", "lsq"):
        results.expected[f"m/absmax/1b/{method}/s0"] = Expected(reason="one bit is too few", date="2026-08-01")
    return results


@pytest.fixture(scope="module")
def now(make_record: MakeRecord) -> list[Record]:
    """Return a run after which every verdict is given."""
    made = [make_record(f"m/fp/s{seed}") for seed in range(2)]
    made += [make_record("n/fp/s0", 0.01), make_record("n/mse/2b/rtn/s0", 1.2)]
    made += [make_record(f"m/mse/4b/{method}/s0", 0.03, weights_sha256="cd") for method in ("rtn",)]
    made += [make_record(f"m/mse/4b/{method}/s0", 0.03, weights_sha256="ab") for method in ("gptq", "lsq")]
    made += [make_record("m/mse/2b/rtn/s0", 0.7), make_record("m/mse/2b/rtn/s1", [0.9, 0.7, 0.6, 0.4])]
    made += [
        make_record("m/mse/2b/gptq/s0", 0.5, fallback="rtn: Cholesky failed"),
        make_record("m/mse/2b/gptq/s1", 0.6),
    ]
    made += [make_record(f"m/mse/2b/lsq/s{seed}", 0.6017) for seed in range(2)]
    made += [make_record("m/absmax/2b/rtn/s0", **FAILED), make_record("m/absmax/2b/lsq/s0", 3.9)]
    made += [make_record("m/absmax/2b/ste_qat/s0", 1.0)]
    made += [make_record("m/absmax/1b/gptq/s0", 4.0), make_record("m/absmax/1b/lsq/s0", **FAILED)]
    return [record.model_copy(update={"environment": {**record.environment, "qbench": "0.2.0"}}) for record in made]


@pytest.fixture(scope="module")
def comparison(before: Results, now: list[Record]) -> Comparison:
    return compare(now, before, suite="tiny", device="cpu x86_64")


def test_every_verdict_is_given(comparison: Comparison) -> None:
    assert set(comparison.counts) == set(WORST_FIRST)
    assert [row.label for row in comparison.seed_means] == ["m/mse/2b/lsq (mean of 2 seeds)"]


def test_to_the_letter(comparison: Comparison) -> None:
    bless = "qbench bless --suite tiny"
    page = render_comparison_markdown(comparison, run="qbench run --suite tiny", bless=bless)
    assert render_comparison(comparison, bless=bless) == (GOLDEN / "comparison.txt").read_text(encoding="utf-8")
    assert page == (GOLDEN / "comparison.md").read_text(encoding="utf-8")
    assert render_junit(comparison) == (GOLDEN / "comparison.xml").read_text(encoding="utf-8")


def test_what_blessing_changes_to_the_letter(before: Results, now: list[Record]) -> None:
    repeat = []
    for record in now:
        if "/mse/2b/lsq/" in record.label or "m/fp" in record.label:
            noisy = {**record.metrics, "loss/blocks128": (record.loss or 0) + 0.001 * len(record.label)}
            repeat.append(record.model_copy(update={"metrics": noisy}))
    elsewhere = [record.model_copy(update={"environment": {**record.environment, "torch": "2.9.0"}}) for record in now]
    new = gather(elsewhere, [repeat])
    labels = frozenset({*new.cells, "m/mse/2b/ste_qat/s0"})
    accept = ("m/mse/2b/gptq/s0", "m/absmax/2b/rtn/s0", "m/mse/2b/ste_qat/s0")
    _, change = prepare(
        before, new, Request("tiny", "cpu x86_64", labels, accept=accept), reason="why", date="2026-11-28"
    )
    assert change.gone == ("m/absmax/2b/gptq/s0",) and change.loosened
    assert render_change(change) == (GOLDEN / "blessing.txt").read_text(encoding="utf-8")


def test_every_line_fits(comparison: Comparison) -> None:
    long = "resnet8-fashion[calibration_images=512,evaluation_images=5000]/mse[per_channel]/2b/ste_qat[steps=200]/s0"
    rows = (replace(comparison.rows[0], label=long), *comparison.rows[1:])
    text = render_comparison(replace(comparison, rows=rows), everything=True)
    assert max(map(len, text.splitlines())) <= 80 and "ste_qat[steps=200]/s0" in text


def test_every_row_is_shown_when_asked_for(comparison: Comparison) -> None:
    short, whole = render_comparison(comparison), render_comparison(comparison, everything=True)
    told = {line.strip().partition(";")[0] for line in whole.splitlines() if line.startswith("  ")}
    assert {row.label for row in comparison.rows} <= told
    assert "more" not in whole
    shown = [line for line in short.splitlines() if line.partition(" ")[0] in WORST_FIRST]
    assert len(shown) == 10
    hidden = len(comparison.rows) + len(comparison.seed_means) - 10
    assert f"... and {hidden} more: " in short


def test_markdown_has_changed_cells_only_and_begins_with_its_marker(comparison: Comparison) -> None:
    page = render_comparison_markdown(comparison)
    assert page.splitlines()[0] == "<!-- qbench: tiny -->"
    table = [line for line in page.splitlines() if line.startswith("| ")]
    for row in comparison.rows:
        in_table = any(f" {row.label} " in line for line in table)
        assert in_table is (row.verdict not in ("same", "expected", "blocked")), row
    assert "not judged: 1 cells of n/s0, since full precision is worse" in page
    assert page.count("<details>") == page.count("</details>") == 1


def test_other_weights_are_in_the_comment_where_they_are_red(comparison: Comparison) -> None:
    label = next(row.label for row in comparison.rows if row.other_weights)
    assert f"| same      | {label} " in render_comparison_markdown(replace(comparison, exact=True))
    assert f" {label} " not in render_comparison_markdown(comparison)


def test_a_comment_is_never_too_long_and_holds_no_markup_of_strangers() -> None:
    said = "<script>alert(1)</script> | @everyone \n\n--> # " + "x" * 5000
    rows = tuple(
        ComparisonRow(f"m{index}/{'long' * 200}/2b/rtn/s0", 1.0, 2.0, 1.0, 0.002, verdict, note=said, group=f"m{index}")
        for index in range(600)
        for verdict in ("worse", "blocked", "expected")
    )
    ground = {f"{said}{index}": (said, said) for index in range(400)}
    page = render_comparison_markdown(
        Comparison(f"{said} a", rows, ground), run="qbench run -s 'a\n```\nb|c' " + "x" * 50_000, bless="qbench bless"
    )
    assert len(page) < MOST_CHARACTERS
    assert "<script" not in page and "@everyone" not in page
    assert [line for line in page.splitlines() if line.startswith("```")] == ["```sh", "```"]
    assert "qbench run -s 'a ``` b|c' x" in page, "a command can be copied"
    assert 1 <= sum(line.startswith("| worse") for line in page.splitlines()) <= MOST_ROWS
    assert "... and 590 more: 590 worse" in page or "... and 550 more: 550 worse" in page
    assert marker("a --> b") == "<!-- qbench: a --_ b -->"


def test_junit_is_read_by_another_parser_with_the_same_counts(comparison: Comparison) -> None:
    suite = minidom.parseString(render_junit(comparison)).getElementsByTagName("testsuite")[0]
    cases = suite.getElementsByTagName("testcase")
    assert [case.getAttribute("name") for case in cases] == [
        row.label for row in (*comparison.seed_means, *comparison.rows)
    ]
    counted = {kind: len(suite.getElementsByTagName(kind)) for kind in ("failure", "error", "skipped")}
    given = {kind: int(suite.getAttribute(name)) for kind, name in
             (("failure", "failures"), ("error", "errors"), ("skipped", "skipped"))}  # fmt: skip
    assert counted == given
    assert int(suite.getAttribute("tests")) == len(cases)
    red = sum(map(comparison.red, (*comparison.rows, *comparison.seed_means)))
    assert counted["failure"] + counted["error"] == red
    assert counted["skipped"] == comparison.counts["expected"] + comparison.counts["new"]


def test_junit_survives_what_xml_does_not_allow(comparison: Comparison) -> None:
    row = replace(comparison.rows[0], note='\x00\x1b[31m <&>" ]]> \ud800 ü', label="a\x07<b>")
    page = render_junit(replace(comparison, rows=(row,), suite="<&>"))
    page.encode()
    (case, *_) = reversed(minidom.parseString(page).getElementsByTagName("testcase"))
    assert case.getAttribute("name") == "a\ufffd<b>"
    assert '<&>" ]]> \ufffd ü' in case.getElementsByTagName("error")[0].getAttribute("message")


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.00234, False, ".0023"),
        (-0.1, True, "-.1000"),
        (1.5, True, "+1.5000"),
        (-0.00001, True, "+.0000"),
        (0.0, False, ".0000"),
        (float("inf"), True, "inf"),
    ],
)
def test_fine_numbers(value: float, signed: bool, text: str) -> None:
    assert fine(value, signed=signed) == text


def test_outcomes_in_words(comparison: Comparison, make_record: MakeRecord) -> None:
    def said(now: list[Record], **how: Any) -> str:
        return render_comparison(compare(now, gather(then), suite="tiny", **how)).splitlines()[0]

    then = [make_record("m/fp/s0"), make_record("m/mse/4b/rtn/s0", 0.03, weights_sha256="ab")]
    assert said(then) == "tiny against its baseline: no regression (2 same; 1 with the same weights)"
    better = [then[0], make_record("m/mse/4b/rtn/s0", 0.02)]
    assert "tiny against its baseline: changed, and not blessed (1 better" in said(better)
    other = [then[0], then[1].model_copy(update={"weights_sha256": "cd"})]
    assert "tiny against its baseline: other weights on equal ground (2 same)" in said(other, exact=True)
    assert "regressed (1 missing" in said(then[:1])
    assert "nothing was compared (2 new)" in render_comparison(compare(then, Results(qbench_version="1", cells={})))

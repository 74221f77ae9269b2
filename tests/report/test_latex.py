"""LaTeX: every table has as many cells as columns, every sign is set to the letter, and nothing is too wide."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.report.latex import WIDTH, escape, render_latex
from qbench.report.leaderboard import leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.run import Run
from qbench.store.record import Record

MakeRecord = Callable[..., Record]

NASTY = r"a\b{c}_50%~x^2 & #1 $y$ <z> |w| `q` --only"
WORDS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textasciigrave{}": "`",
    r"\textquotedbl{}": '"',
    "-{}": "-",
    **{f"\\{sign}": sign for sign in "&%$#_{}"},
}


def set_by_tex(text: str) -> str:
    """Return what TeX would set: escapes undone, one at a time from the left, anything unescaped refused."""
    found, at = "", 0
    while at < len(text):
        word = next((word for word in WORDS if text.startswith(word, at)), text[at])
        assert word in WORDS or word not in '\\&%$#_{}~^<>|`"', text
        found += WORDS.get(word, word)
        at += len(word)
    return found


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_every_sign_is_set_to_the_letter(text: str) -> None:
    assert set_by_tex(escape(text)) == " ".join(text.split())
    assert "--" not in escape(text)


@pytest.fixture(scope="module")
def runs(make_record: MakeRecord) -> list[Run]:
    long = "gptq[cd_sweeps=5,group_scales=fresh]"
    made = [make_record("m/fp/s0")]
    for bits in (8, 4, 3, 2):
        for method in ("rtn", long, "[odd]", "*star", NASTY.replace("/", "")):
            for quantizer in ("mse[per_channel]", "absmax[g64]"):
                made.append(make_record(f"m/{quantizer}/{bits}b/{method}/s0", 0.9 / bits - 0.1))
    made.append(make_record("m/mse[per_channel]/2b/lsq/s0", status="failed", reason=NASTY))
    return [Run("one", made, command="qbench run --suite one"), Run("two", made)]


def tables_in(text: str) -> list[tuple[str, list[str]]]:
    """Return the column specification and the rows of each table."""
    found = re.findall(r"\\begin\{longtable\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\\end\{longtable\}", text, re.DOTALL)
    return [(columns, [line for line in body.splitlines()[1:] if line.endswith(r"\\")]) for columns, body in found]


def test_every_row_has_as_many_cells_as_its_table_has_columns(runs: list[Run]) -> None:
    tables = tables_in(render_latex(runs))
    assert len(tables) == render_latex(runs).count(r"\begin{longtable}") > 20
    for columns, lines in tables:
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
            assert not line.startswith(("[", "*")), line


def test_braces_and_environments_are_closed(runs: list[Run]) -> None:
    text = render_latex(runs)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[{}]", "", code)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for way, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        if way == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    assert all(re.fullmatch(r"[\x00-\x7f]*", line) for line in text.splitlines())
    assert not re.search(r"(?<!\\)[%#]", re.sub(r"\[1\]\{#1\}", "", code))


def test_tables_too_wide_come_in_parts_that_repeat_their_keys(runs: list[Run]) -> None:
    text = render_latex(runs)
    assert re.search(r": loss \((\d) of \1\)\}", text)
    for columns, lines in tables_in(text):
        cells = [
            [
                set_by_tex(re.sub(r"\$-\$", "-", re.sub(r"\\qbench\w+\{(.*?)\}", r"\1", cell)))
                for cell in re.split(r"(?<!\\) & ", line.removesuffix(r" \\").removeprefix("{}"))
            ]
            for line in lines
        ]
        width = sum(max(map(len, column)) for column in zip(*cells, strict=True)) + 3 * (len(columns) - 1)
        assert width <= WIDTH or columns.count("r") == 1


def test_all_that_markdown_says_is_there(runs: list[Run]) -> None:
    text = set_words(render_latex(runs[:1]))
    for line in render_markdown(runs[0].board).splitlines():
        if line.startswith("- ") and not line.startswith("- Made by"):
            assert line[2:].replace("&lt;", "<").replace("\\|", "|").split() == [
                word for word in line[2:].replace("&lt;", "<").replace("\\|", "|").split() if word in text
            ], line


def set_words(text: str) -> set[str]:
    items = [line.removeprefix(r"  \item ").removeprefix("{}") for line in text.splitlines() if r"  \item" in line]
    return {word for item in items for word in set_by_tex(item).split()}


def test_labels_are_names_that_no_two_tables_share(runs: list[Run]) -> None:
    labels = re.findall(r"\\label\{(.*?)\}", render_latex([*runs, runs[0]]))
    assert len(labels) == len(set(labels)) > 30
    assert all(re.fullmatch("tab:[a-z0-9-]+", label) for label in labels)


def test_a_comment_says_how_it_was_made_and_what_it_needs(runs: list[Run]) -> None:
    head = [line for line in render_latex(runs).splitlines()[:12] if line.startswith("%")]
    assert head[0] == "% Leaderboards of one, two"
    assert head[1] == "% Made by: qbench run --suite one"
    for package in ("booktabs", "longtable", "fontenc", "xcolor"):
        assert any(package in line for line in head), package


def test_regimes_are_words_in_macros_that_are_plain_until_they_are_redefined(runs: list[Run]) -> None:
    text = render_latex(runs)
    assert r"\qbenchgrey{grey}" in text and r"\providecommand{\qbenchgrey}[1]{#1}" in text


def test_no_records_no_tables() -> None:
    text = render_latex([Run("empty", [])])
    assert r"\section{empty}" in text and "longtable}{" not in text
    assert leaderboard([]).groups == ()

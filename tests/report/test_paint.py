"""Colours repeat what words say: no character changes, and no name is taken for a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from qbench.report.paint import paint

GOLDEN = Path(__file__).parent / "golden"


def styled(text: str) -> set[tuple[str, str]]:
    painted = paint(text)
    return {(painted.plain[span.start : span.end], str(span.style)) for span in painted.spans}


@pytest.mark.parametrize("name", ["leaderboard.txt", "images.txt", "comparison.txt", "blessing.txt"])
def test_no_character_changes(name: str) -> None:
    text = (GOLDEN / name).read_text(encoding="utf-8")
    assert paint(text).plain == text


def test_what_is_not_well_is_red_in_every_table() -> None:
    found = styled((GOLDEN / "leaderboard.txt").read_text(encoding="utf-8"))
    assert {("failed 1/2", "bold red"), ("missing", "bold red"), ("diverged", "bold red")} <= found
    assert {("inside", "cyan"), ("grey", "yellow"), ("skipped", "yellow")} <= found


def test_headers_and_titles_are_bold_and_rules_faint() -> None:
    found = styled((GOLDEN / "leaderboard.txt").read_text(encoding="utf-8"))
    assert ("== llama-1m/mse ==", "bold") in found
    assert any(text.startswith("regime ") and style == "bold" for text, style in found)
    assert any(set(text) == {"-", " "} and style == "dim" for text, style in found)


def test_verdicts_of_a_comparison() -> None:
    found = styled((GOLDEN / "comparison.txt").read_text(encoding="utf-8"))
    assert {("worse", "bold red"), ("failed", "bold red"), ("moved", "red"), ("better", "cyan")} <= found


@pytest.mark.parametrize("text", ["m/failed/s0", "rtn[x=failed,y=1]", "latent_inside", "the same grid", "a - b"])
def test_parts_of_names_and_plain_words_are_left_alone(text: str) -> None:
    assert styled(text) == set()

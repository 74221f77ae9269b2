"""What is printed: colours in a terminal, the same words without them everywhere else."""

from __future__ import annotations

import re

import pytest

from qbench.cli import options

TEXT = "regime  4 bits\n------  ------\nrtn     failed 1/2\n"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_what_is_piped_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    options.show(TEXT)
    assert capsys.readouterr().out == TEXT + "\n"
    assert options.text_width() == 80 and options.line_width() > 10**6


def test_a_terminal_gets_colours_and_the_same_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    options.show(TEXT + "x" * 300)
    said = capsys.readouterr().out
    assert "\x1b[1;31mfailed 1/2\x1b[0m" in said
    assert re.sub(r"\x1b\[[0-9;]*m", "", said) == TEXT + "x" * 300 + "\n"


def test_no_color_is_respected_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    options.show(TEXT)
    assert capsys.readouterr().out == TEXT + "\n"


@pytest.mark.parametrize(("columns", "width"), [("60", 80), ("100", 100), ("200", 120)])
def test_tables_are_as_wide_as_the_terminal_within_reason(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    assert options.text_width() == options.line_width() == width

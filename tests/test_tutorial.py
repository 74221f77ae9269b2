"""The tutorial is run: its files, its commands in order; what it shows is what they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d*\.?\d+")
WRONG_CALLS = {"qbench validate slip.yaml": 2}


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))


def alike(shown: str, printed: str) -> bool:
    """Return whether two texts are the same but for blanks and the last digits of fractions.

    Another processor rounds otherwise: a loss may move by some hundredths, the words of a table stay.
    """
    words = [re.sub(r"\s+", " ", _NUMBER.sub("#", text)).strip().replace("-", "") for text in (shown, printed)]
    numbers = [_NUMBER.findall(text) for text in (shown, printed)]
    return words[0] == words[1] and all(
        one == other or ("." in one and "." in other and near(float(one), float(other)))
        for one, other in zip(*numbers, strict=True)
    )


def near(one: float, other: float) -> bool:
    return abs(one - other) <= 0.01 + 0.05 * abs(one)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_it_shows_is_what_its_commands_print(tmp_path: Path) -> None:
    import tutorial

    shown = 0
    for command in tutorial.run(PAGE, tmp_path):
        said = f"$ {command.line}\n{command.printed}"
        assert command.code == WRONG_CALLS.get(command.line, 0), said
        if command.shown:
            shown += 1
            assert alike(command.shown, tutorial.shortened(command.printed)), f"{said}\nis not\n{command.shown}"
    assert shown >= 5
    assert (tmp_path / "table.tex").read_text(encoding="utf-8").count(r"\toprule") >= 2
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("paper_table") > 1


def test_the_suite_has_ten_lines_and_is_the_table() -> None:
    import tutorial

    suite = next(block for block in tutorial.blocks(PAGE) if block.title == "paper_table.yaml")
    assert len(suite.text.splitlines()) == 10


def test_what_is_to_be_put_into_the_suite_fits_there(tmp_path: Path) -> None:
    import tutorial

    found = tutorial.blocks(PAGE)
    suite = next(block.text for block in found if block.title == "paper_table.yaml")
    pieces = [block.text for block in found if block.kind == "yaml" and not block.title]
    assert pieces
    for piece in pieces:
        key = piece.partition(":")[0]
        changed = re.sub(rf"^{key}:.*\n", piece, suite, flags=re.MULTILINE)
        assert changed != suite
        (tmp_path / "paper_table.yaml").write_text(changed, encoding="utf-8")
        assert enumerate_cells(load_suite(str(tmp_path / "paper_table.yaml")))


def test_the_gate_is_the_one_of_its_own_page() -> None:
    import tutorial

    (gate,) = [block.text for block in tutorial.blocks(PAGE) if block.title.endswith("gate.yml")]
    rest = set(gate.splitlines()) - set((ROOT / "docs" / "ci.md").read_text(encoding="utf-8").splitlines())
    assert rest == {"      suite: paper_table.yaml"}


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("rtn  +.030 [.020,.041]  inside", True),
        ("rtn +.031   [.020,.041] inside", True),
        ("rtn  +.090 [.020,.041]  inside", False),
        ("rtn  +.030 [.020,.041]  grey", False),
        ("rtn  +.030 [.020,.041]", False),
    ],
)
def test_how_printed_things_are_compared(printed: str, same: bool) -> None:
    assert alike("rtn  +.030 [.020,.041]  inside", printed) is same
    assert not alike("39 cells", "38 cells")

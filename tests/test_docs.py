"""docs/methods.md names every method and every option, and its measured table was made by the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qbench.methods.fine_tune import FineTuning
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.registry import METHODS

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n")[0]: part for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]}
BUILT_IN = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("qbench.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_of_a_method_is_explained(name: str) -> None:
    fields = set(METHODS.get(name).model_fields) - {"name"}
    if name == "lsq":
        fields -= set(StraightThroughQAT.model_fields)
    missing = {field for field in fields if f"`{field}`" not in SECTIONS[name]}
    assert not missing


def test_options_that_there_are_not_are_not_explained() -> None:
    for name in BUILT_IN:
        rows = [line.split("|")[1] for line in SECTIONS[name].splitlines() if line.startswith("| `")]
        named = set(re.findall(r"`(\w+)`", " ".join(rows)))
        assert named <= set(METHODS.get(name).model_fields), name


def test_the_control_copies_every_option_of_the_budget() -> None:
    budget = set(FineTuning.model_fields) - {"name"}
    assert {f"`{field}`" for field in budget} <= set(re.findall(r"`\w+`", SECTIONS["ste_qat"]))


def test_the_measured_table_is_there() -> None:
    table = PAGE.partition("<!-- perf: begin -->\n")[2].partition("<!-- perf: end -->")[0]
    assert "matmul" in table and table.count("\n|") > 20

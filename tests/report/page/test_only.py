"""The command on a cell's page runs that cell."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from qbench.report.page import only
from qbench.report.page.place import Place, places_of
from qbench.report.run import Run
from qbench.store.record import Record
from qbench.suite.cell import Cell
from qbench.suite.enumerate import axes_of, enumerate_cells, filter_cells
from qbench.suite.load import load_suite

SUITES = ("smoke", "llm_lowbit", "quantizers", "river_valley", "theory_llm", "vision_fashion", "torchvision")


def places(cells: list[Cell], name: str) -> dict[str, Place]:
    run = Run(name, [], axes_of(c for c in cells if not c.is_probe), axes_of(c for c in cells if c.is_probe))
    return {place.label: place for place in places_of(run)}


def selected(cells: list[Cell], command: str) -> list[Cell]:
    words = shlex.split(command)
    return filter_cells(cells, words[words.index("--only") + 1])


@pytest.mark.parametrize("suite", SUITES)
def test_it_selects_the_cell_and_what_it_is_measured_against(suite: str) -> None:
    cells = enumerate_cells(load_suite(suite))
    found = places(cells, suite)
    assert found.keys() == {cell.label() for cell in cells}
    for cell in cells[:: max(1, len(cells) // 40)]:
        place = found[cell.label()]
        got = selected(cells, only.command(place))
        also = {other.label for other in only.others(place, found.values())}
        points = {point.label() for point in cell.points}
        rest = [one for one in got if one.label() not in {cell.label(), *also, *points}]
        assert cell.label() in {one.label() for one in got}
        assert also <= {one.label() for one in got}
        assert all((one.is_fp or one.is_control) and one.seed == cell.seed for one in rest)


def test_a_label_with_options_selects_itself_alone() -> None:
    cells = enumerate_cells(load_suite("llm_lowbit"))
    found = places(cells, "llm_lowbit")
    label = "llama-1m/mse[per_channel]/2b/gptq[cd_sweeps=5]/s0"
    assert only.others(found[label], found.values()) == []
    assert [one.label() for one in selected(cells, only.command(found[label])) if not one.is_fp] == [label]


def test_a_name_that_others_answer_to_is_told() -> None:
    cells = enumerate_cells(load_suite("llm_lowbit"))
    found = places(cells, "llm_lowbit")
    others = only.others(found["llama-1m/mse[per_channel]/2b/gptq/s0"], found.values())
    assert [one.label for one in others] == ["llama-1m/mse[per_channel]/2b/gptq[cd_sweeps=5]/s0"]


def test_records_without_their_suite_say_which_it_was(make_record: Callable[..., Record]) -> None:
    (place,) = places_of(Run("a folder", [make_record("m/fp/s0", suite="smoke")]))
    assert shlex.split(only.command(place))[:4] == ["qbench", "run", "--suite", "smoke"]


@pytest.mark.parametrize("label", ["a[x='it''s, \"b\" | c']", "p:Q[path=/tmp/a b]", "q[f=(1,2),g={3|4}]", "$(rm)`x`"])
def test_a_shell_takes_it_for_one_word(label: str) -> None:
    axes = {"model": label, "quantizer": None, "bits": None, "method": "fp", "seed": 0}
    (place,) = places_of(Run("my suite", [], [axes]))
    words = shlex.split(only.command(place))
    assert words == [
        *("qbench", "run", "--suite", "my suite", "--only"), f"model={label},method=fp,seed=0", "--fresh"
    ]  # fmt: skip

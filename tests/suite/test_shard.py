"""Parts of a suite: together they are the suite, apart they need nothing of each other."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbench.errors import QBenchError
from qbench.suite.cell import Cell
from qbench.suite.controls import control_place, controls_of
from qbench.suite.enumerate import enumerate_cells, filter_cells
from qbench.suite.load import list_suites, load_suite
from qbench.suite.shard import parse_shard, shard


@pytest.fixture(autouse=True)
def names() -> None:
    """Use the built-in names, not those of the other tests of this folder."""


@cache
def cells_of(name: str) -> tuple[Cell, ...]:
    return tuple(enumerate_cells(load_suite(name)))


def group(cell: Cell) -> tuple[object, ...]:
    axes = cell.axes()
    return tuple(axes[axis] for axis in ("model", "seed", "quantizer", "bits"))


each_suite = pytest.mark.parametrize("name", list_suites())


@each_suite
@settings(max_examples=4)
@given(count=st.sampled_from([2, 3, 7, 40]))
def test_the_parts_are_the_suite_and_each_stands_alone(name: str, count: int) -> None:
    cells = cells_of(name)
    parts = [shard(cells, index, count) for index in range(1, count + 1)]
    # Nothing is lost and nothing is new; the order is kept.
    labels = [cell.label() for cell in cells]
    assert {cell.label() for part in parts for cell in part} == set(labels)
    for part in parts:
        mine = {cell.label() for cell in part}
        assert [cell.label() for cell in part] == [label for label in labels if label in mine]
    # A cell on a grid is in one part, with its whole group, probes and what they read among them.
    seen = Counter(cell.label() for part in parts for cell in part if cell.quantizer is not None)
    assert set(seen.values()) <= {1}
    places = [(index, group(cell)) for index, part in enumerate(parts) for cell in part if cell.quantizer is not None]
    assert len(set(places)) == len({place for _, place in places})
    for part in parts:
        mine = {cell.label() for cell in part}
        assert all(point.label() in mine for cell in part for point in cell.points)
        # What a row is read against comes along, and nothing else does.
        rows = {(cell.model.label(), cell.seed) for cell in part}
        assert {(cell.model.label(), cell.seed) for cell in part if cell.is_fp} == rows
        running = [cell for cell in part if cell.is_control and cell.skip is None]
        needed = controls_of(cell for cell in part if cell.skip is None)
        assert {control_place(cell) for cell in running} == needed
    # Even, up to one group.
    loads = [sum(cell.skip is None and cell.quantizer is not None for cell in part) for part in parts]
    largest = max(Counter(group(cell) for cell in cells if cell.skip is None and cell.quantizer is not None).values())
    assert max(loads) <= sum(loads) / count + largest
    if count <= len({group(cell) for cell in cells if cell.quantizer is not None}):
        assert all(parts)


@each_suite
def test_one_part_is_all(name: str) -> None:
    cells = cells_of(name)
    assert shard(cells, 1, 1) == list(cells)


def test_the_parts_are_those_of_the_cells_that_are_asked_for() -> None:
    cells = filter_cells(list(cells_of("llm_lowbit")), "method=rtn|gptq")
    parts = [shard(cells, index, 3) for index in (1, 2, 3)]
    assert {cell.label() for part in parts for cell in part} == {cell.label() for cell in cells}
    assert not any(cell.is_control for part in parts for cell in part)


@pytest.mark.parametrize("only", ["method=fp", "method=fine_tune", "method=fp|rtn,bits=4"])
def test_what_no_cell_on_a_grid_needs_is_in_one_part(only: str) -> None:
    cells = filter_cells(list(cells_of("llm_lowbit")), only)
    for count in (1, 2, 5, 40):
        parts = [shard(cells, index, count) for index in range(1, count + 1)]
        assert {cell.label() for part in parts for cell in part} == {cell.label() for cell in cells}


def test_full_precision_is_not_run_everywhere_for_nothing() -> None:
    """The cuts follow the order of the suite: few rows are in two parts."""
    cells = cells_of("llm_lowbit")
    rows = {(cell.model.label(), cell.seed) for cell in cells}
    parts = [shard(cells, index, 4) for index in range(1, 5)]
    assert sum(cell.is_fp for part in parts for cell in part) <= len(rows) + 3


@pytest.mark.parametrize(("text", "part"), [("1/1", (1, 1)), (" 2/4 ", (2, 4)), ("4/4", (4, 4)), ("7/1000", (7, 1000))])
def test_parts_that_there_are(text: str, part: tuple[int, int]) -> None:
    assert parse_shard(text) == part


@pytest.mark.parametrize(
    "text",
    ["0/4", "5/4", "4", "", "1/0", "-1/4", "1/-4", "1.0/2", "a/b", "1/2/3", "1 / 2", "1/2001", "٣/٤", "1/2\n1/2"],
)
def test_parts_that_there_are_not(text: str) -> None:
    allowed = "allowed: i/n, the i-th of n parts, from 1/n to n/n; n at most 1000"
    with pytest.raises(QBenchError, match=rf"^--shard: given {re.escape(repr(text))} \({re.escape(allowed)}\)$"):
        parse_shard(text)


@given(text=st.text(max_size=2000))
def test_any_text(text: str) -> None:
    try:
        index, count = parse_shard(text)
    except QBenchError as error:
        assert len(str(error)) < 200 and str(error).isprintable()
    else:
        assert 1 <= index <= count

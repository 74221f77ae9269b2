"""On many machines the longest cells begin first, and those of one model and seed stay together."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.runner.durations import Durations, Kind, Times, kind_of
from qbench.runner.identity import PlannedCell
from qbench.runner.order import longest_first
from qbench.runner.queue import group_of
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
METHODS = ("rtn", "waits", "noisy")


@pytest.fixture(scope="session")
def pool(toy: MakeCell) -> list[Cell]:
    """Return cells of two models and two seeds, full precision among them."""
    rows = [{"seed": seed, "pause": pause} for seed in (0, 1) for pause in (0.0, 0.5)]
    return [toy(method, **row) for row in rows for method in (None, *METHODS)]


def planned(cells: list[Cell]) -> list[PlannedCell]:
    return [PlannedCell(cell, {}, str(index)) for index, cell in enumerate(cells)]


def known(seconds: dict[Kind, float]) -> Durations:
    return Durations({kind: Times(1, taken) for kind, taken in seconds.items()})


def labels(todo: list[PlannedCell]) -> list[str]:
    return [one.cell.label() for one in todo]


@given(st.data())
def test_any_plan(pool: list[Cell], data: Any) -> None:
    todo = planned(data.draw(st.lists(st.sampled_from(pool), max_size=24)))
    kinds = {kind_of(cell) for cell in pool}
    durations = known(data.draw(st.dictionaries(st.sampled_from(sorted(kinds)), st.integers(1, 9).map(float))))
    found = longest_first(todo, durations)
    assert sorted(found, key=lambda one: int(one.cell_id)) == todo, "the same cells, each once"

    first = [one.cell.is_fp for one in found]
    assert first == sorted(first, reverse=True), "full precision gates the rest"
    seconds = {kind: durations.expected(kind) for kind in kinds}
    taken = {kind: math.inf if found is None else found for kind, found in seconds.items()}
    total: dict[object, float] = {}
    for one in todo:
        total[group_of(one)] = total.get(group_of(one), 0.0) + taken[kind_of(one.cell)]
    for of_fp in (True, False):
        part = [one for one in found if one.cell.is_fp is of_fp]
        groups = [group for group, _ in groupby(part, key=group_of)]
        assert len(groups) == len(set(groups)), "a group is not left and come back to"
        assert [total[group] for group in groups] == sorted((total[group] for group in groups), reverse=True)
        for _, of_group in groupby(part, key=group_of):
            ranks = [(-taken[kind_of(one.cell)], int(one.cell_id)) for one in of_group]
            assert ranks == sorted(ranks), "the longest first, and equals in their order"


def test_what_nothing_is_known_of_counts_as_long(toy: MakeCell) -> None:
    quick, slow, unknown = toy("rtn", seed=0), toy("waits", seed=1), toy("noisy", seed=2)
    durations = known({kind_of(quick): 1.0, kind_of(slow): 1e6})
    assert labels(longest_first(planned([quick, slow, unknown]), durations)) == [
        one.label() for one in (unknown, slow, quick)
    ]


def test_where_nothing_is_known_the_order_of_the_plan_stays(pool: list[Cell]) -> None:
    todo = planned(sorted(pool, key=lambda cell: not cell.is_fp))
    grouped = sorted(
        todo, key=lambda one: (not one.cell.is_fp, [group_of(other) for other in todo].index(group_of(one)))
    )
    assert longest_first(todo, Durations()) == grouped

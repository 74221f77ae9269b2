"""Node-hours are arithmetic: more nodes are never slower, nothing is faster than its longest chain."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.runner.node_hours import Demand, Node, Work, at_once, hours, works_of

NODE = Node(cpus=4, gpus=2, memory=16_000)
SIZES = st.integers(0, 20_000)
DEMANDS = st.builds(Demand, st.integers(1, 6), st.sampled_from([0.0, 0.25, 0.1, 1.0, 2.0]), st.none() | SIZES)


@st.composite
def plans(draw: Any) -> list[Work]:
    """Return cells that wait for a first one, and some for one of the others besides."""
    count = draw(st.integers(1, 12))
    works: list[Work] = []
    for index in range(count):
        after = ("0",) if index else ()
        if index > 1 and draw(st.booleans()):
            after += (str(draw(st.integers(1, index - 1))),)
        seconds = draw(st.none() | st.floats(0.1, 1000))
        works.append(Work(str(index), seconds, draw(DEMANDS), after))
    return works


@given(plans())
def test_more_nodes_are_never_slower_and_no_number_beats_the_chain(works: list[Work]) -> None:
    found = hours(works, [NODE])
    walls = [found.wall_seconds(count) for count in (1, 2, 3, 10, 1000)]
    assert walls == sorted(walls, reverse=True)
    assert (
        min(walls)
        >= found.chain
        >= max((work.seconds or 0.0 for work in works if work.cell_id not in found.misfits), default=0.0)
    )


@given(plans(), st.integers(1, 9))
def test_node_hours_are_those_of_any_number_of_nodes(works: list[Work], count: int) -> None:
    one, many = hours(works, [NODE]), hours(works, [replace(NODE, count=count)])
    assert many.node_seconds == pytest.approx(one.node_seconds)
    halves = [hours(part, [NODE]).node_seconds for part in (works[::2], works[1::2])]
    assert sum(halves) == pytest.approx(one.node_seconds)


@given(DEMANDS)
def test_what_is_said_to_fit_fits_and_one_more_does_not(demand: Demand) -> None:
    count = at_once(demand, NODE)

    def has_room(cells: int) -> bool:
        taken = cells * demand.cpus, cells * demand.gpus, cells * (demand.memory or 0)
        return taken[0] <= NODE.cpus and taken[1] <= NODE.gpus + 1e-6 and taken[2] <= NODE.memory

    assert has_room(count) and not has_room(count + 1)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.integers(1, 5))
def test_a_run_of_like_cells_ends_between_the_bound_and_that_of_graham(times: list[float], count: int) -> None:
    demand = Demand(cpus=2)
    works = [Work("0", 5.0, demand), *(Work(str(n), t, demand, ("0",)) for n, t in enumerate(times, 1))]
    found = hours(works, [NODE])
    places = [5.0] * (count * at_once(demand, NODE))  # the first cell is done, and everything waits for it
    for seconds in times:
        heapq.heapreplace(places, places[0] + seconds)
    assert found.wall_seconds(count) <= max(places) + 1e-6
    assert max(places) <= found.node_seconds / count + found.chain + 1e-6


def test_a_cell_that_is_larger_than_the_node_is_said_and_not_counted() -> None:
    large, small = Work("large", 100.0, Demand(1, memory=NODE.memory + 1)), Work("small", 10.0, Demand(1))
    found = hours([large, small], [NODE])
    assert found.misfits == ("large",) and (found.chain, found.node_seconds) == (10.0, 2.5)
    assert hours([large], [NODE]).most == 0
    assert not hours([large, small], [NODE, replace(NODE, memory=2 * NODE.memory)]).misfits


def test_what_takes_an_unknown_time_is_said() -> None:
    found = hours([Work("a", None, Demand(1)), Work("b", 8.0, Demand(1))], [NODE])
    assert found.unknown == ("a",) and found.node_seconds == 2.0


def test_nodes_of_two_kinds_count_as_the_average_one() -> None:
    work = Work("a", 60.0, Demand(1))
    found = hours([work], [Node(1, 0, 10, count=3), Node(5, 0, 10, count=1)])
    assert found.node_seconds == 60 / 2 and (found.most, found.least) == (5, 5)


def test_cells_wait_for_their_row_and_probes_for_what_they_read(
    toys: ModuleType, toy: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    point = toy("rtn")
    probe = replace(point, method=None, probe=toys.Reader(name="reader"), points=(point,))
    todo = planned([toy(), point, toy("rtn", seed=1), probe])
    works = works_of(todo, lambda one: 10.0, lambda one: Demand(1))
    row, read = todo[0].cell_id, todo[1].cell_id
    assert [work.after for work in works] == [(), (row,), (), (row, read)]
    assert hours(works, [NODE]).chain == 30.0
    assert hours(works[1:], [NODE]).chain == 20.0, "what is stored already is waited for no more"

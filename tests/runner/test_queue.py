"""Every cell is given or shut exactly once, in the plan's order, and never before what it waits for has ended."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.runner.identity import PlannedCell
from qbench.runner.queue import Ended, Queue, group_of
from qbench.store.summary import Summary
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


def ended(one: PlannedCell, how: str = "ok") -> Summary:
    """Return what is held of a cell that has ended; one that ``fell back`` is not clean either."""
    said = Summary.of(one.not_executed("toy", "failed" if how == "failed" else "ok", how, "2026-01-01T00:00:00Z"))
    return replace(said, fallbacks=("dead layer",) if how == "fell back" else ())


class Driver:
    """What `run` is to a queue: it ends cells, and tells the queue so."""

    def __init__(self, todo: list[PlannedCell], stored: dict[str, Ended] | None = None) -> None:
        self.ended: Any = stored if stored is not None else {}
        self.shut: list[tuple[str, str]] = []
        self.queue = Queue(todo, self.ended, self._shut)

    def end(self, one: PlannedCell, how: str = "ok") -> None:
        self.ended[one.cell_id] = ended(one, how)
        self.queue.open(one.cell_id)

    def _shut(self, one: PlannedCell, gate: Ended) -> None:
        self.shut.append((one.cell_id, gate.cell_id))
        self.end(one, "failed")


@pytest.fixture(scope="session")
def cells(toy: MakeCell) -> Callable[..., PlannedCell]:
    """Return a function that plans a cell of a seed: full precision, or one that may wait for others."""
    full, rounded = [toy(seed=seed) for seed in range(3)], [toy("rtn", seed=seed) for seed in range(3)]

    def make(name: str, seed: int = 0, *, fp: bool = False, after: tuple[str, ...] = ()) -> PlannedCell:
        return PlannedCell((full if fp else rounded)[seed], {}, name, {f"after {one}": one for one in after})

    return make


MakePlanned = Callable[..., PlannedCell]


def names(queue: Queue) -> list[str]:
    """Return what is given until something has to end."""
    return [one.cell_id for one in iter(lambda: next(queue, None), None)]


def test_what_waits_for_nothing_comes_in_the_order_of_the_plan(cells: MakePlanned) -> None:
    todo = [cells(name, seed) for name, seed in (("c", 0), ("a", 1), ("b", 0))]
    driver = Driver(todo)
    assert list(driver.queue) == todo
    assert list(driver.queue) == [], "it has ended for good"


def test_full_precision_gates_its_row_alone(cells: MakePlanned) -> None:
    fp = cells("fp0", fp=True)
    driver = Driver([fp, cells("fp1", 1, fp=True), cells("a"), cells("b", 2), cells("c", 1)])
    assert names(driver.queue) == ["fp0", "fp1", "b"]
    driver.end(fp)
    assert names(driver.queue) == ["a"]
    assert next(driver.queue) is None, "one waits, and the queue is not at its end"


def test_a_probe_waits_for_all_its_points(cells: MakePlanned) -> None:
    points = [cells("p"), cells("q")]
    driver = Driver([cells("probe", after=("p", "q", "of another run")), *points])
    assert names(driver.queue) == ["p", "q"]
    driver.end(points[0])
    assert next(driver.queue) is None
    driver.end(points[1])
    assert names(driver.queue) == ["probe"]
    with pytest.raises(StopIteration):
        next(driver.queue)


@pytest.mark.parametrize("how", ["failed", "fell back"])
def test_a_gate_that_is_not_clean_shuts_all_that_waits_for_it(cells: MakePlanned, how: str) -> None:
    fp = cells("fp", fp=True)
    driver = Driver([fp, cells("a"), cells("other", 1), cells("probe", after=("a",))])
    assert names(driver.queue) == ["fp", "other"]
    driver.end(fp, how)
    assert list(driver.queue) == []
    assert driver.shut == [("a", "fp"), ("probe", "fp")], "each is told of once, with what it waited for first"


def test_a_stored_point_that_is_not_clean_shuts_its_probe(cells: MakePlanned) -> None:
    driver = Driver([cells("probe", after=("p",))], {"p": ended(cells("p"), "fell back")})
    assert list(driver.queue) == [] and driver.shut == [("probe", "p")]


def test_a_wanted_group_comes_first_once(cells: MakePlanned) -> None:
    todo = [cells("a"), cells("b", 1), cells("c"), cells("d", 1)]
    driver = Driver(todo)
    driver.queue.prefer(group_of(todo[1]))
    assert names(driver.queue) == ["b", "a", "c", "d"]


def test_a_wanted_group_that_has_nothing_open_gives_the_next_of_the_plan(cells: MakePlanned) -> None:
    fp = cells("fp", 1, fp=True)
    driver = Driver([fp, cells("a"), cells("b", 1)])
    driver.queue.prefer(group_of(fp))
    assert next(driver.queue) == fp
    driver.queue.prefer(group_of(fp))
    assert names(driver.queue) == ["a"], "b waits"
    driver.queue.prefer(group_of(cells("z", 2)))
    driver.end(fp)
    assert names(driver.queue) == ["b"]


@st.composite
def graphs(draw: Any) -> list[tuple[str, int, bool, tuple[str, ...]]]:
    """Return rows of three seeds, some with full precision, whose cells wait for others, in any order."""
    found = [(f"fp{seed}", seed, True, ()) for seed in range(3) if draw(st.booleans())]
    for index in range(draw(st.integers(0, 12))):
        after = draw(st.lists(st.integers(0, index - 1), max_size=3, unique=True)) if index else []
        found.append((str(index), draw(st.integers(0, 2)), False, tuple(map(str, after))))
    return list(draw(st.permutations(found)))


@given(graphs(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_every_cell_is_given_or_shut_once_and_after_its_gates(
    cells: MakePlanned, graph: list[tuple[str, int, bool, tuple[str, ...]]], chance: Any, room: int
) -> None:
    todo = [cells(name, seed, fp=fp, after=after) for name, seed, fp, after in graph]
    rows = {seed: name for name, seed, fp, _ in graph if fp}
    gates = {name: {*after, *([rows[seed]] if not fp and seed in rows else [])} for name, seed, fp, after in graph}
    driver, running, given = Driver(todo), list[PlannedCell](), list[str]()
    over = False
    while not over or running:
        while not over and len(running) < room:
            driver.queue.prefer(chance.choice([None, *map(group_of, todo)]))
            try:
                one = next(driver.queue)
            except StopIteration:
                over = True
                break
            if one is None:
                assert running, "nothing runs that could end: the run would hang"
                break
            assert all(driver.ended[gate].clean for gate in gates[one.cell_id])
            given.append(one.cell_id)
            running.append(one)
        if running:
            driver.end(running.pop(chance.randrange(len(running))), chance.choice(["ok", "ok", "failed", "fell back"]))
    shut = [name for name, _ in driver.shut]
    assert sorted([*given, *shut]) == sorted(gates)
    assert all(gate in gates[name] and not driver.ended[gate].clean for name, gate in driver.shut)


class Counting(UserDict[str, Ended]):
    """Counts how often it is asked."""

    asked = 0

    def __getitem__(self, key: str) -> Ended:
        self.asked += 1
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return super().__contains__(key)


def test_ten_times_the_cells_are_ten_times_the_work(cells: MakePlanned) -> None:
    asked = {}
    for count in (1_000, 10_000):
        fp = cells("fp", fp=True)
        todo = [fp, *(cells(str(index), after=(str(index - 1),) if index % 2 else ()) for index in range(count))]
        held = Counting()
        driver = Driver(todo, held)  # type: ignore[arg-type]
        given = 0
        while (one := next(driver.queue, None)) is not None:
            given += 1
            driver.end(one)
        assert given == count + 1
        asked[count] = held.asked
    assert asked[10_000] <= 10.1 * asked[1_000]

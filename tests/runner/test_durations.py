"""How long cells take is told by those that ended, and by nothing else."""

from __future__ import annotations

import pytest

from qbench.runner.durations import Durations, kind_of
from qbench.store.record import Cost, Record
from qbench.store.summary import Summary

RTN, LSQ = ("m", "rtn"), ("m", "lsq")


def stored(kind: tuple[str, str], seconds: float, **fields: object) -> Summary:
    axes = {"model": kind[0], "quantizer": "mse", "bits": 4, "method": kind[1], "seed": 0}
    filled = {"cost": Cost(method_seconds=seconds), "status": "ok"} | fields
    return Summary.of(Record(cell_id="x", key={}, axes=axes, suite="s", **filled))  # type: ignore[arg-type]


def test_nothing_is_known_of_what_never_ended() -> None:
    known = Durations.of([stored(RTN, 3.0), stored(LSQ, 3.0, status="failed")])
    assert known.expected(RTN) == 3.0 and known.expected(LSQ) is None
    assert known.left({RTN: 1, LSQ: 1}, [], jobs=1) == (3.0, False)


def test_earlier_runs_count_as_one_cell_and_fade() -> None:
    known = Durations.of([stored(RTN, 10.0)] * 50)
    assert known.expected(RTN) == 10.0
    for _ in range(9):
        known.learn(RTN, 20.0)
    # On a machine half as fast what was known before is twice as long, too.
    assert known.expected(RTN) == pytest.approx(20.0)


def test_a_slower_machine_is_seen_in_kinds_that_did_not_end_here() -> None:
    known = Durations.of([stored(RTN, 10.0), stored(LSQ, 100.0)])
    known.learn(RTN, 20.0)
    assert known.expected(LSQ) == pytest.approx(200.0)


def test_the_same_method_on_another_model_tells_where_nothing_else_does() -> None:
    known = Durations()
    known.learn(("a", "lsq"), 10.0)
    known.learn(("b", "lsq"), 30.0)
    assert known.expected(("c", "lsq")) == 20.0 and known.expected(("a", "lsq")) == 10.0
    assert known.expected(("c", "rtn")) is None


def test_what_is_left_is_shared_out_and_never_less_than_the_longest_cell() -> None:
    known = Durations()
    known.learn(RTN, 10.0)
    known.learn(LSQ, 100.0)
    assert known.left({RTN: 8, LSQ: 0}, [], jobs=2) == (40.0, True)
    assert known.left({RTN: 1, LSQ: 1}, [], jobs=4) == (100.0, True)
    assert known.left({}, [(LSQ, 30.0)], jobs=4) == (70.0, True)
    assert known.left({}, [(RTN, 300.0)], jobs=1) == (0.0, True)
    assert known.left({}, [], jobs=1) == (0.0, True)


def test_a_cell_has_the_kind_of_its_record(toy: object) -> None:
    cell = toy("rtn")  # type: ignore[operator]
    assert kind_of(cell) == ("toy", "rtn")


def test_many_cells_are_counted_and_not_listed() -> None:
    known = Durations()
    known.learn(RTN, 10.0)
    assert known.left({RTN: 10**12}, [], jobs=1) == (1e13, True)


def test_several_kinds_are_told_as_each_alone() -> None:
    known = Durations.of([stored(RTN, 10.0), stored(LSQ, 100.0)])
    known.learn(RTN, 20.0)
    kinds = [RTN, LSQ, ("other", "lsq"), ("m", "unknown")]
    assert known.expected_of(kinds) == {kind: known.expected(kind) for kind in kinds}

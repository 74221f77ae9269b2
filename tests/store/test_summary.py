"""A summary says what its record says, and no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from qbench.store.record import Cost, LayerRow, Record
from qbench.store.summary import Summary, seconds_of

MakeRecord = Callable[..., Record]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"label": "llama-1m/fp/s0"},
        {"status": "failed", "reason": "out of memory"},
        {"fallback": "Cholesky failed"},
        {"key": {"probe": {}}},
        {"weights_sha256": "ab", "cost": Cost(method_seconds=2.0, evaluation_seconds=1.0, peak_memory_bytes=9)},
    ],
)
def test_a_summary_says_what_its_record_says(make_record: MakeRecord, fields: dict[str, object]) -> None:
    record = make_record(**fields)
    found = Summary.of(record)
    shared = ("cell_id", "axes", "status", "reason", "weights_sha256", "ended", "clean", "label", "is_probe")
    assert {name: getattr(found, name) for name in shared} == {name: getattr(record, name) for name in shared}
    assert found.seconds == seconds_of(record)
    assert found.peak_memory_bytes == record.cost.peak_memory_bytes
    assert list(found.fallbacks) == list(dict.fromkeys(record.fallbacks))


def test_each_reason_of_a_fallback_is_there_once(make_record: MakeRecord) -> None:
    layers = [
        LayerRow(name=str(at), shape=(2, 2), weight_error=0.1, output_error=0.1, levels=4, fallback=why)
        for at, why in enumerate(["dead", None, "singular", "dead"])
    ]
    assert Summary.of(make_record(layers=layers)).fallbacks == ("dead", "singular")


def test_it_cannot_be_changed(make_record: MakeRecord) -> None:
    found = Summary.of(make_record())
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.status = "failed"  # type: ignore[misc]
    assert not hasattr(found, "__dict__")


@pytest.mark.parametrize(
    ("started", "ended", "seconds"),
    [
        ("2026-08-01T10:00:00+00:00", "2026-08-01T10:01:30.500+00:00", 90.5),
        ("", "2026-08-01T10:01:30+00:00", 3.0),
        ("2026-08-01T10:01:30+00:00", "2026-08-01T10:00:00+00:00", 3.0),
        ("yesterday", "2026-08-01T10:01:30+00:00", 3.0),
        ("2026-08-01", "2026-08-02T10:01:30+00:00", 3.0),
    ],
)
def test_a_record_tells_its_time_from_start_to_end(
    make_record: MakeRecord, started: str, ended: str, seconds: float
) -> None:
    cost = Cost(method_seconds=2.0, evaluation_seconds=1.0)
    assert seconds_of(make_record(started=started, ended=ended, cost=cost)) == seconds

"""Records survive the way to JSON and back, also old ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import StoreError
from qbench.store import schema
from qbench.store.floats import dumps, revive, spell
from qbench.store.record import SCHEMA_VERSION, Record
from qbench.store.schema import CorruptRecordError, dump_record, load_record, parse_record

HISTORIC = Path(__file__).parents[1] / "historic"

MakeRecord = Callable[..., Record]


def test_a_record_survives_json(make_record: MakeRecord) -> None:
    record = make_record(traces={"train_loss": [1.0, 0.1 + 0.2, 1e-300]})
    assert parse_record(dump_record(record)) == record


def test_nan_and_infinities_survive_in_every_field(make_record: MakeRecord) -> None:
    record = make_record(
        metrics={"loss/blocks128": math.inf, "perplexity/blocks128": math.nan},
        traces={"train_loss": [2.0, -math.inf, math.nan]},
        facts={"chance_loss": math.inf, "nested": {"values": [math.nan, 1.0]}},
        key={"method": {"clip": math.inf}},
    )
    text = dump_record(record)
    again = parse_record(text)
    assert again.metrics["loss/blocks128"] == math.inf
    assert math.isnan(again.metrics["perplexity/blocks128"])
    assert again.traces["train_loss"][1] == -math.inf
    assert math.isnan(again.traces["train_loss"][2])
    assert again.facts["chance_loss"] == math.inf
    assert math.isnan(again.facts["nested"]["values"][0])
    assert again.key == {"method": {"clip": math.inf}}
    # Strict JSON: the bare words NaN and Infinity, which no other reader takes, must not be in the file.
    json.loads(text, parse_constant=lambda word: pytest.fail(f"bare {word} in the file"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["a", ""]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_spelling_is_undone_by_reviving(value: Any) -> None:
    assert revive(json.loads(dumps(value))) == value
    assert revive(spell(value)) == value


def test_the_text_has_sorted_keys_and_ends_with_a_newline(make_record: MakeRecord) -> None:
    text = dump_record(make_record())
    assert text.endswith("}\n")
    keys = list(json.loads(text))
    assert keys == sorted(keys)


@pytest.mark.parametrize("path", sorted(HISTORIC.glob("record_v*.json")), ids=lambda path: path.stem)
def test_historic_records_load(path: Path) -> None:
    record = parse_record(path.read_text(encoding="utf-8"))
    assert record.schema_version == SCHEMA_VERSION
    assert record.label == "llama-1m/mse/2b/gptq/s0"
    assert record.loss == 3.5581719623
    assert record.documents[1].tokens == 1911
    assert math.isnan(record.traces["damping_tried"][1])
    assert record.fallbacks == ["rtn: Cholesky failed at damping 1"]


def test_there_is_a_historic_record_of_every_version() -> None:
    versions = [json.loads(path.read_text())["schema_version"] for path in sorted(HISTORIC.glob("record_v*.json"))]
    assert versions == list(range(1, SCHEMA_VERSION + 1))


def test_a_cell_that_ran_out_of_time_survives_json(make_record: MakeRecord) -> None:
    record = make_record(status="timeout", reason="not done after 2 s (--timeout)", metrics={}, layers=[])
    again = parse_record(dump_record(record))
    assert again == record and again.schema_version == 2
    assert not again.clean and again.loss is None


def test_old_versions_pass_through_every_migration(make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename_name(data: dict[str, Any]) -> dict[str, Any]:
        return {("suite" if key == "name" else key): value for key, value in data.items()}

    def add_bench(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "name": f"{data['name']}!"}

    monkeypatch.setattr(schema, "MIGRATIONS", {SCHEMA_VERSION - 2: add_bench, SCHEMA_VERSION - 1: rename_name})
    data = make_record().model_dump()
    data["name"] = data.pop("suite")
    data["schema_version"] = SCHEMA_VERSION - 2
    assert load_record(data) == make_record(suite="tiny!")


def test_a_newer_record_is_not_called_corrupt(make_record: MakeRecord) -> None:
    data = make_record().model_dump() | {"schema_version": SCHEMA_VERSION + 1, "invented_later": 1}
    with pytest.raises(StoreError, match=r"written by a newer qbench .* update qbench") as caught:
        load_record(data)
    assert not isinstance(caught.value, CorruptRecordError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"schema_version": 1, "cell_id": "a', "not JSON"),
        ("[]", "no schema_version"),
        ("{}", "no schema_version"),
        ('{"schema_version": -3}', "schema_version -3 never existed"),
        ('{"schema_version": 1}', "cell_id: Field required"),
    ],
)
def test_what_is_no_record_is_corrupt(text: str, message: str) -> None:
    with pytest.raises(CorruptRecordError, match=message):
        parse_record(text)

"""The quick encoder writes what Python's own does, byte for byte."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.store.archive import read_archive
from qbench.store.floats import dumps, spell
from qbench.store.indented import indented

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=30
)


def by_python(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)


@given(DATA)
def test_any_data(value: Any) -> None:
    assert indented(value) == by_python(value)


@given(st.recursive(SCALARS | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_has_to_be_spelled_is(value: Any) -> None:
    assert dumps(value, indent=1) == by_python(spell(value))


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": {"b": -math.inf}}, {1: 2}, {"a": {1: []}}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"no string|not JSON compliant"):
        indented(value)


def test_published_records() -> None:
    records = read_archive(Path("results/records/llm_lowbit.jsonl.xz")).records[:20]
    for record in records:
        assert dumps(record.model_dump(), indent=1) == by_python(spell(record.model_dump()))

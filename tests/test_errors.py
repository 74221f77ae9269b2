from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench import errors
from qbench.errors import QBenchError, SuiteError, UnknownNameError, nearest

TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)]


@pytest.mark.parametrize("error", TREE)
def test_every_error_is_mendable_and_drawn_in_the_tree(error: type[Exception]) -> None:
    assert issubclass(error, QBenchError)
    assert error.__name__ in str(errors.__doc__)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "wrong"),
        ({"file": Path("suites/a.yaml")}, "suites/a.yaml: wrong"),
        ({"file": Path("suites/a.yaml"), "line": 3}, "suites/a.yaml:3: wrong"),
    ],
)
def test_a_suite_error_says_where(place: dict[str, object], message: str) -> None:
    error = SuiteError("wrong", **place)  # type: ignore[arg-type]
    assert str(error) == message
    assert (error.file, error.line) == (place.get("file"), place.get("line"))


@pytest.mark.parametrize(
    ("name", "allowed", "message"),
    [
        ("gtpq", ["rtn", "gptq"], "unknown method 'gtpq': did you mean 'gptq'? (allowed: gptq, rtn)"),
        ("zzz", ["rtn", "gptq"], "unknown method 'zzz' (allowed: gptq, rtn)"),
        ("gptq", [], "unknown method 'gptq' (allowed: none)"),
        (4, ["4bit"], "unknown method 4 (allowed: 4bit)"),
    ],
)
def test_an_unknown_name_says_the_nearest(name: object, allowed: list[str], message: str) -> None:
    error = UnknownNameError("method", name, allowed)
    assert str(error) == message
    assert (error.kind, error.name, error.allowed) == ("method", name, sorted(allowed))


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.data())
def test_the_nearest_of_a_name_with_one_letter_more_is_named(allowed: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(allowed))
    text = nearest(f"{name}x", allowed)
    assert ": did you mean " in text
    assert text.endswith(f"(allowed: {', '.join(sorted(allowed))})")

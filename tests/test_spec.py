from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from qbench.spec import Spec


class Options(Spec):
    act_order: bool = True
    percdamp: float = 0.01
    steps: int | None = None
    rounds: tuple[int, ...] = Field(default_factory=lambda: (1, 2))
    folder: Path | None = None


class Required(Spec):
    steps: int


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "gptq"),
        ({"act_order": True, "percdamp": 0.01, "rounds": [1, 2]}, "gptq"),
        ({"act_order": False}, "gptq[act_order=false]"),
        ({"percdamp": 1}, "gptq[percdamp=1]"),
        ({"percdamp": 1e-5}, "gptq[percdamp=1e-05]"),
        ({"percdamp": 0.1234567}, "gptq[percdamp=0.1234567]"),
        ({"percdamp": 1 / 3}, "gptq[percdamp=0.3333333333333333]"),
        ({"folder": "/data/wiki/en"}, "gptq[folder=en]"),
        ({"steps": 3, "act_order": False}, "gptq[act_order=false,steps=3]"),
        ({"rounds": [4]}, "gptq[rounds=(4,)]"),
    ],
)
def test_a_label_holds_what_is_not_at_its_default_in_the_order_of_the_fields(
    options: dict[str, object], label: str
) -> None:
    assert Options.model_validate({"name": "gptq", **options}).label() == label


def test_a_required_option_is_always_in_the_label() -> None:
    assert Required(name="train", steps=100).label() == "train[steps=100]"


def test_some_options_can_be_left_to_the_caller() -> None:
    options = Options(name="gptq", act_order=False, steps=3)
    assert options.changed_options() == ["act_order=false", "steps=3"]
    assert options.changed_options(but={"steps"}) == ["act_order=false"]


@given(st.builds(Options, name=st.just("gptq")), st.builds(Options, name=st.just("gptq")))
def test_equal_options_have_equal_labels(one: Options, other: Options) -> None:
    assert Options.model_validate(one.model_dump()).label() == one.label()
    if one.label() != other.label():
        assert one != other


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_different_floats_have_different_labels(one: float, other: float) -> None:
    labels = {Options(name="gptq", percdamp=value).label() for value in (one, other)}
    assert (len(labels) == 1) == (one == other)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="steps"):
        Spec.model_validate({"name": "rtn", "steps": 3})


def test_options_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Options(name="gptq").percdamp = 0.1


def test_version_and_sources_are_no_options() -> None:
    assert set(Spec.model_fields) == {"name"}
    assert (Spec.version, Spec.sources) == (1, ())

"""Published settings are settings that methods have, and say where they are from."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qbench.methods.gptq import GPTQ
from qbench.methods.lsq import LearnedStepSize
from qbench.registry import METHODS
from qbench.suite.published import defaults_of, option_differences, published


@pytest.mark.parametrize("name", list(published()))
def test_each_published_option_is_one_of_its_method(name: str) -> None:
    entry = published()[name]
    kind = METHODS.get(entry.method)
    assert set(entry.options) <= set(kind.model_fields) - {"name"}
    made = kind.model_validate({"name": entry.method, **entry.options})
    assert option_differences(made, entry.options) == []
    assert entry.source.strip()
    assert entry.options, "a preset that says nothing compares nothing"
    assert all(text.strip() for text in entry.absent)


@pytest.mark.parametrize("name", list(published()))
def test_a_value_is_what_the_method_makes_of_it(name: str) -> None:
    """A word where a number belongs, or a switch that YAML reads as a word, would never compare as equal."""
    entry = published()[name]
    made = METHODS.get(entry.method).model_validate({"name": entry.method, **entry.options})
    assert {option: getattr(made, option) for option in entry.options} == entry.options


def test_methods_that_papers_describe_have_one() -> None:
    assert {entry.method for entry in published().values()} >= {"gptq", "adaround", "brecq", "lsq", "block_ap"}


def test_differences_are_those_of_the_preset_alone() -> None:
    spec = GPTQ(name="gptq", percdamp=0.05, cd_sweeps=3)
    assert option_differences(spec, {"percdamp": 0.01, "act_order": True, "unknown": 3}) == [("percdamp", 0.05, 0.01)]
    assert option_differences(spec, {}) == []
    assert [one.option for one in option_differences(spec, defaults_of(spec))] == ["percdamp", "cd_sweeps"]


def test_a_value_is_read_as_the_method_reads_it() -> None:
    spec = LearnedStepSize(name="lsq", learning_rate=1.0)
    assert option_differences(spec, {"learning_rate": 1, "step_size_learning_rate": None}) == []
    with pytest.raises(ValidationError):
        option_differences(spec, {"learning_rate": "fast"})


@pytest.mark.parametrize("name", METHODS.names())
def test_defaults_differ_from_defaults_in_nothing(name: str) -> None:
    spec = METHODS.get(name).model_validate({"name": name})
    assert option_differences(spec, defaults_of(spec)) == []

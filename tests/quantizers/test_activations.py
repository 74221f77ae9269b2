"""Options of quantized inputs: what they are called, how they are read, and which go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qbench.errors import SuiteError
from qbench.quant.grid import IntegerGrid
from qbench.quantizers.activations import Activations
from qbench.quantizers.base import Quantizer
from qbench.registry import QUANTIZERS
from qbench.suite.load import load_suite

# options, the label, the words in a record
NAMED: list[tuple[dict[str, Any], str, str]] = [
    ({"bits": 8}, "a8", "8 bits dynamic per_token, asymmetric"),
    ({"bits": 8, "scale": "dynamic", "granularity": "per_token"}, "a8", "8 bits dynamic per_token, asymmetric"),
    ({"bits": 4, "symmetric": True}, "a4-symmetric", "4 bits dynamic per_token, symmetric"),
    ({"bits": 4, "granularity": "per_tensor"}, "a4-per_tensor", "4 bits dynamic per_tensor, asymmetric"),
    ({"bits": 2, "scale": "static"}, "a2-static", "2 bits static per_tensor, asymmetric"),
    (
        {"bits": 2, "scale": "static", "granularity": "per_tensor", "range": "mse"},
        "a2-static-mse",
        "2 bits static per_tensor by mse, asymmetric",
    ),
    (
        {"bits": 3, "scale": "static", "symmetric": True, "range": "percentile", "percentile": 99},
        "a3-static-symmetric-percentile99",
        "3 bits static per_tensor by percentile 99, symmetric",
    ),
]
SUITE = """\
name: s
matrix:
  models: [llama-1m]
  quantizers: [{name: mse, activations: {bits: 8}}]
  bits: [4]
  methods: [rtn]
"""
AT = "s.yaml:4: `matrix.quantizers[0].activations"

each_setting = pytest.mark.parametrize(("options", "label", "words"), NAMED, ids=[label for _, label, _ in NAMED])


def make(name: str = "mse", **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


@each_setting
def test_they_are_named_in_short_and_in_words(options: dict[str, Any], label: str, words: str) -> None:
    found = Activations.model_validate(options)
    assert (str(found), found.describe()) == (label, words)
    assert found.levels() == IntegerGrid(options["bits"], options.get("symmetric", False))


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_every_quantizer_has_them_in_its_label(name: str) -> None:
    without, quantizer = make(name).label(), make(name, activations={"bits": 8})
    assert quantizer.label() == f"{without.removesuffix(']')},a8]"
    assert make(name, activations=None).label() == without


def test_they_stand_beside_other_options_in_the_label() -> None:
    quantizer = make(p=2.4, symmetric=False, first_last="8bit", activations={"bits": 4, "scale": "static"})
    assert quantizer.label() == "mse[per_channel,asymmetric,first_last=8bit,p=2.4,a4-static]"


def test_settings_that_differ_have_labels_that_differ() -> None:
    labels: dict[str, Activations] = {}
    for options, label, _ in NAMED:
        found = Activations.model_validate(options)
        assert labels.setdefault(label, found) == found


@each_setting
def test_they_survive_json(options: dict[str, Any], label: str, words: str) -> None:
    quantizer = make(activations=options)
    plain = json.loads(json.dumps(quantizer.model_dump(mode="json")))
    again = make(**{key: value for key, value in plain.items() if key != "name"})
    assert again == quantizer and again.label() == quantizer.label()
    assert hash(again) == hash(quantizer)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("{bits: 1}", ".bits`: given 1 (allowed: 2 or more)"),
        ("{bits: 9}", ".bits`: given 9 (allowed: 8 or less)"),
        ("{bits: yes}", ".bits`: given true (allowed: a whole number)"),
        ("{bits: 4.0}", ".bits`: given 4.0 (allowed: a whole number)"),
        ("{scale: static}", "`: 'bits' is missing"),
        ("8", "`: given 8 (allowed: a mapping)"),
        ("{bits: 8, scale: statik}", ".scale`: given 'statik': did you mean 'static'? (allowed: dynamic, static)"),
        (
            "{bits: 8, granularity: per_toke}",
            ".granularity`: given 'per_toke': did you mean 'per_token'? (allowed: per_tensor, per_token)",
        ),
        ("{bits: 8, symmetric: 1}", ".symmetric`: given 1 (allowed: true or false)"),
        (
            "{bits: 8, scale: static, range: ms}",
            ".range`: given 'ms': did you mean 'mse'? (allowed: absmax, mse, percentile)",
        ),
        (
            "{bits: 8, scale: static, range: percentile, percentile: 101}",
            ".percentile`: given 101 (allowed: 100.0 or less)",
        ),
        (
            "{bits: 8, granularty: per_token}",
            ".granularty`: unknown option 'granularty' of mse.activations: did you mean 'granularity'? "
            "(allowed: bits, granularity, percentile, range, scale, symmetric)",
        ),
        (
            "{bits: 8, scale: static, granularity: per_token}",
            "`: scale: static fixes the range before any input is seen, and granularity: per_token asks for one of "
            "each token (allowed: granularity: per_tensor, or scale: dynamic)",
        ),
        (
            "{bits: 8, range: mse}",
            "`: range: mse is found on calibration data, and scale: dynamic looks at none (allowed: range: absmax, or "
            "scale: static)",
        ),
        (
            "{bits: 8, scale: static, percentile: 99}",
            "`: percentile belongs to range: percentile, and range is absmax",
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_is_allowed(tmp_path: Path, given: str, answer: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.replace("{bits: 8}", given))
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path))
    assert str(caught.value).endswith(AT + answer), str(caught.value)


def test_a_suite_has_them(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE)
    (quantizer,) = load_suite(str(path)).matrix[0].quantizers
    assert quantizer.label() == "mse[per_channel,a8]"


def test_they_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Activations(bits=8).bits = 4

"""Bits of single layers: how they are read, kept and called, and which layers they are of."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qbench.errors import CellError, SuiteError
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layer_bits import MOST_CHARACTERS, MOST_PATTERNS, LayerBits
from qbench.registry import QUANTIZERS
from qbench.suite.bounds import MAX_BITS
from qbench.suite.limits import MAX_KEY, MAX_VALUES
from qbench.suite.load import load_suite

GIVEN = {"*.mlp.*": 4, "*.down": 3, "h.1.up": 2}
NAMES = ["h.0.up", "h.0.mlp.down", "h.1.up", "h.1.down", "h.1.Down"]
PAGE = Path(__file__).parents[2] / "docs" / "quantizers.md"


def make(name: str = "mse", **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


def bits_of(given: Any, names: list[str] = NAMES) -> dict[str, int]:
    found = make(layer_bits=given).layer_bits
    assert found is not None
    return found.of(names)


def test_the_first_pattern_that_fits_counts() -> None:
    assert bits_of(GIVEN) == {"h.0.mlp.down": 4, "h.1.down": 3, "h.1.up": 2}
    assert bits_of({"*.down": 3, "*.mlp.*": 4, "*": 8})["h.0.mlp.down"] == 3


def test_a_name_is_a_pattern_that_fits_itself_alone() -> None:
    assert bits_of({"h.1.up": 2, "h.?.[u]p": 3}) == {"h.1.up": 2, "h.0.up": 3}
    assert bits_of({"h.1.Down": 5}) == {"h.1.Down": 5}  # not of h.1.down, on no system


def test_a_pattern_that_fits_no_layer_is_told_with_the_nearest_name() -> None:
    with pytest.raises(CellError) as caught:
        bits_of({"*.down": 3, "h.1.upp": 2})
    allowed = ", ".join(["*.Down", "*.down", "*.up", *sorted(NAMES)])
    said = "layer_bits: 'h.1.upp' fits no layer that can be quantized"
    assert str(caught.value) == f"{said}: did you mean 'h.1.up'? (allowed: {allowed})"
    with pytest.raises(CellError, match=r"'\*\.dwn_proj' fits no .*: did you mean '\*\.down_proj'\? \(allowed: "):
        bits_of({"*.dwn_proj": 3}, ["model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj"])
    with pytest.raises(CellError, match=r"'\*\.fc' fits no .* \(allowed: fc\)"):
        bits_of({"*.fc": 3}, ["fc"])


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_every_quantizer_has_them_in_its_label(name: str) -> None:
    without = make(name)
    bits = next(bits for bits in range(1, 9) if without.refuses(bits) is None)
    assert without.layer_bits is None and "layer_bits" not in without.label()
    plain = without.label().removesuffix("]")
    written = json.dumps([["*.down", bits]], separators=(",", ":"))
    digest = hashlib.sha256(written.encode()).hexdigest()[:8]
    assert make(name, layer_bits={"*.down": bits}).label() == f"{plain},layer_bits={digest}]"


def test_the_label_is_the_same_for_ever() -> None:
    given = {"model.layers.0.*": 4, "*.down_proj": 3}
    assert make(layer_bits=given).label() == "mse[per_channel,layer_bits=446c061d]"
    assert make(p=2.4, first_last="8bit", activations={"bits": 8}, layer_bits=given).label() == (
        "mse[per_channel,first_last=8bit,layer_bits=446c061d,p=2.4,a8]"
    )


def test_what_differs_has_another_label_the_order_of_patterns_too() -> None:
    others = [GIVEN, {**GIVEN, "h.1.up": 3}, {"*": 4}, dict(reversed(GIVEN.items()))]
    made = [make(layer_bits=given) for given in others]
    assert len({one.label() for one in made}) == len(set(made)) == len(others)
    assert make(layer_bits=GIVEN) == made[0] and hash(make(layer_bits=GIVEN)) == hash(made[0])


def test_they_survive_a_record_whose_keys_are_sorted() -> None:
    quantizer = make(layer_bits=GIVEN)
    plain = json.loads(json.dumps(quantizer.model_dump(mode="json"), sort_keys=True))
    for again in (plain, quantizer.model_dump(), {**plain, "layer_bits": LayerBits(patterns=tuple(GIVEN.items()))}):
        assert type(quantizer).model_validate(again) == quantizer
    assert type(quantizer).model_validate_json(quantizer.model_dump_json()) == quantizer
    assert make(layer_bits=None) == make()


ALLOWED = "(allowed: a mapping of layer names or shell patterns to bits)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, f"layer_bits 3 is not to be read {ALLOWED}"),
        ({}, f"layer_bits {{}} is not to be read {ALLOWED}"),
        ([["*.up"]], f"layer_bits ['*.up'] is not to be read {ALLOWED}"),
        ([[3, 3]], f"layer_bits [3, 3] is not to be read {ALLOWED}"),
        ("x" * 99, f"layer_bits '{'x' * 56}... is not to be read {ALLOWED}"),
        ({"*.up": True}, "layer_bits of '*.up': given True (allowed: a whole number from 1 to 8)"),
        ({"*.up": "4"}, "layer_bits of '*.up': given '4' (allowed: a whole number from 1 to 8)"),
        ({"*.up": 9}, "layer_bits of '*.up': given 9 (allowed: a whole number from 1 to 8)"),
        ({"": 4}, "layer_bits: a pattern of 0 characters (allowed: 1 to 100)"),
        ({"x" * 101: 4}, "layer_bits: a pattern of 101 characters (allowed: 1 to 100)"),
        ({f"h.{place}": 4 for place in range(10_001)}, "layer_bits has 10001 patterns (allowed: at most 10000)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_read_is_told_why(given: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(layer_bits=given)
    (error,) = caught.value.errors()
    assert (error["loc"], str(error["ctx"]["error"])) == (("layer_bits",), message)


def test_the_bounds_are_those_of_suites() -> None:
    assert (MOST_CHARACTERS, MOST_PATTERNS) == (MAX_KEY, MAX_VALUES)
    assert make(layer_bits={"*": MAX_BITS}).layer_bits is not None


@pytest.mark.parametrize(
    ("name", "options", "bits", "reason"),
    [
        ("ternary", {}, 3, "ternary has no grid of 3 bits (allowed: 2)"),
        ("fp", {"format": "e2m1"}, 3, "format e2m1 has 4 bits, not 3"),
        ("pot", {"first_last": "float"}, 8, "pot has no grid of 8 bits (allowed: 2 to 7)"),
    ],
)
def test_bits_that_the_quantizer_has_not_are_refused(name: str, options: Any, bits: int, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(name, layer_bits={"*.up": bits}, **options)
    assert f"layer_bits of '*.up' are not to be had: {reason}" in str(caught.value)


def suite(tmp_path: Path, quantizer: str) -> str:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"name: s\nmatrix:\n  models: [llama-1m]\n  quantizers:\n    - {quantizer}\n  bits: [4]\n  methods: [rtn]\n"
    )
    return str(file)


def test_a_suite_tells_the_place_of_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(suite(tmp_path, '{name: mse, layer_bits: {"*.up": 4, "*.down": 12}}'))
    said = "layer_bits of '*.down': given 12 (allowed: a whole number from 1 to 8)"
    assert str(caught.value).endswith(f"s.yaml:5: `matrix.quantizers[0].layer_bits`: {said}")


def test_the_example_of_the_page_is_a_suite(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(name: .*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "mixed.yaml"
    file.write_text(text)
    plain, mixed = load_suite(str(file)).matrix[0].quantizers
    assert isinstance(plain, Quantizer) and isinstance(mixed, Quantizer)
    assert plain.layer_bits is None and mixed.layer_bits is not None
    assert mixed.layer_bits.patterns == (("model.layers.0.*", 4), ("*.down_proj", 3), ("model.layers.1.mlp.up_proj", 2))

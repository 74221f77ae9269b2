"""The JSON schema refuses what a schema can refuse, and nothing that loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from qbench import registry
from qbench.errors import QBenchError
from qbench.reference.json_schema import suite_schema
from qbench.suite.entry import resolve_entry
from qbench.suite.load import load_suite
from qbench.suite.source import read_source

from . import test_fuzz, test_refusals
from .conftest import SUITE

# What hangs on more than one place of a file or on what its texts mean; and numbers that JSON does not tell apart.
BEYOND_A_SCHEMA = {
    "bits is a float",
    "option that is infinite",
    "name of another file",
    "entry twice",
    "refused by the class",
    "unknown preset",
    "no presets at all",
    "preset of a preset",
    "wrong option in a preset",
    "wrong option in a preset used twice",
    "neither has a name",
    "reason of blanks",
}
WRONG = {
    **{name: SUITE.replace(line, instead) for name, (line, instead, _) in test_refusals.LINES.items()},
    **{name: f"{SUITE}{tail}\n" for name, (tail, _) in test_refusals.TAILS.items()},
    **{
        name: SUITE.replace(test_refusals.METHODS, f"methods: [{methods}]") + f"presets: {presets}\n"
        for name, (presets, methods, _) in test_refusals.PRESETS.items()
    },
    **{f"matrix: {matrix}": f"name: s\nmatrix: {matrix}\n" for matrix in ("[]", "~", "[1]", "nothing")},
}
BUILT_IN = jsonschema.Draft7Validator(suite_schema(built_in=True))
WITH_NAMES_OF_THE_TESTS: dict[str, jsonschema.Draft7Validator] = {}


def says_of(file: Path, validator: jsonschema.Draft7Validator) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(read_source(file).data)]


@pytest.fixture
def validator(names: None) -> jsonschema.Draft7Validator:
    """Know the names of these tests, as the other tests of this folder do."""
    if "" not in WITH_NAMES_OF_THE_TESTS:
        WITH_NAMES_OF_THE_TESTS[""] = jsonschema.Draft7Validator(suite_schema())
    return WITH_NAMES_OF_THE_TESTS[""]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_one_place_is_refused(
    name: str, validator: jsonschema.Draft7Validator, tmp_path: Path
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(WRONG[name])
    with pytest.raises(QBenchError):
        load_suite(str(file))
    assert bool(says_of(file, validator)) is (name not in BEYOND_A_SCHEMA)


def test_the_suite_that_is_changed_there_is_right(validator: jsonschema.Draft7Validator, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SUITE)
    assert says_of(file, validator) == []


def test_names_of_plugins_are_known_where_there_are_plugins(
    validator: jsonschema.Draft7Validator, tmp_path: Path
) -> None:
    file = tmp_path / "s.yaml"
    own = SUITE.replace("[grid]", "[own, {name: own, q: 3}, {name: grid, clip: 2}]")
    file.write_text(own)
    assert len(says_of(file, validator)) == 2
    file.write_text(f"{own}plugins: [own.py]\n")
    assert says_of(file, validator) == []
    file.write_text(f"{own.replace('clip: 2', 'clap: 2')}plugins: [own.py]\n")
    assert len(says_of(file, validator)) == 1


REAL = {name: getattr(registry, name) for name in ("MODELS", "QUANTIZERS", "METHODS", "PROBES")}


def loads(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    file = folder / "smoke.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    with monkeypatch.context() as patched:
        for name, known in REAL.items():
            patched.setattr(registry, name, known)
        try:
            load_suite(str(file))
        except QBenchError:
            return None
    return file


quietly = settings(max_examples=100, suppress_health_check=[*HealthCheck], deadline=None)


@quietly
@given(text=test_fuzz.mutated())
def test_real_suites_that_load_in_spite_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = loads(tmp_path, text, monkeypatch)
    if file is not None:
        assert says_of(file, BUILT_IN) == []


@quietly
@given(data=test_fuzz.suites)
def test_made_up_suites_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any]) -> None:
    file = loads(tmp_path, test_fuzz.written(data, flow=False), monkeypatch)
    if file is not None:
        assert says_of(file, BUILT_IN) == []


ENTRIES = [(known, name) for known in REAL.values() for name in known.names() if known.origin(name) == "built in"]
# Values that some option takes, in every form that YAML may give them; a switch within a list is read as a number.
values = st.one_of(
    st.sampled_from([one for one in test_fuzz.NASTY_VALUES if not isinstance(one, list)]),
    st.sampled_from(
        [
            "1e-3", " 10 ", "1_000", "4.", ".5", "+3", "3.0", "1e2", "0x4", "inf", "on", "No", "TRUE", "t", "2", 1.0,
            10.0, 0.5, 4, 8, 99.0, "cosine", "recalibrate", "mse", "stable", "8bit", "float", "adamw", "e2m1",
            "per_tensor", {"per_block": [2, 4]}, {"per_group": 8.0}, {"per_block": [2]}, {"bits": 4},
            {"bits": 8, "scale": "static", "range": "percentile", "percentile": 99}, {"bits": 1}, {"bits": "4"},
            {"source": "three_texts"}, {"folder": "texts"}, {"folder": "pictures", "size": "32"}, "digits",
            {"source": "digits"}, {"repo": "owner/set", "revision": "0" * 40, "label": "kind"}, "three_texts",
            {"repo": "owner/set", "revision": "main"}, ["rtn"], ["rtn", "gptq[act_order=false]"], [0.5, 1, "2"],
            "group_aware", "resnet18", "a title",
        ]
    ),
    st.integers(-3, 200), st.floats(0, 3),
)  # fmt: skip


@settings(quietly, max_examples=600)
@given(entry=st.sampled_from(ENTRIES), data=st.data())
def test_an_option_that_is_read_is_allowed(entry: tuple[registry.Registry, str], data: st.DataObject) -> None:
    known, name = entry
    fields = [field for field in known.get(name).model_fields if field != "name"]
    needed = {"causal_lm": {"title": "mine", "path": "model"}, "torchvision": {"model": "resnet18"}}.get(name, {})
    options = {**needed, data.draw(st.sampled_from(fields)): data.draw(values), "name": name}
    try:
        resolve_entry(options, known, None)
    except ValidationError:
        return
    suite = {
        "name": "smoke",
        "matrix": {"models": ["mlp-mnist"], "quantizers": ["nf"], "bits": [4], "methods": ["rtn"]},
    }
    suite["matrix"][{"model": "models"}.get(known.kind, f"{known.kind}s")] = [options]
    assert [error.message for error in BUILT_IN.iter_errors(suite)] == []


# pydantic drops the zeros ahead of a number, and then reads a sign that stood behind them.
characters = "0123456789.eE+-_ \tonfalsetryONFALSETRY"
texts = st.text(characters, max_size=6).filter(lambda text: not re.search("0[+-]", text))
texts |= st.from_regex(r"\s?[+-]?[\d_]{1,3}\.?[\d_]{0,2}([eE][+-]?\d)?\s?", alphabet=characters, fullmatch=True)
FINITE = Annotated[float, Field(allow_inf_nan=False)]


@pytest.mark.parametrize(("name", "python"), [("number", FINITE), ("whole_number", int), ("switch", bool)])
@settings(quietly, max_examples=300)
@given(text=texts)
@example(text="1e-3")
@example(text="Yes")
def test_texts_are_read_as_pydantic_reads_them(name: str, python: Any, text: str) -> None:
    assert name in BUILT_IN.schema["definitions"]
    try:
        TypeAdapter(python).validate_python(text)
    except ValidationError:
        return
    assert jsonschema.Draft7Validator(BUILT_IN.schema["definitions"][name]).is_valid(text)

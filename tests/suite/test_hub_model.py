"""A language model is named by where it lies, and what is no such name is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qbench import registry
from qbench.errors import SuiteError
from qbench.reference.json_schema import suite_schema
from qbench.suite.entry import resolve_entry
from qbench.suite.schema import Suite
from qbench.tasks.causal_lm import CausalLM

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BUILTIN = {name: getattr(registry, name) for name in ("MODELS", "QUANTIZERS", "METHODS", "PROBES")}
SUITE = """\
name: s
matrix: {{models: [{model}], quantizers: [absmax], bits: [4], methods: [rtn]}}
"""
ALLOWED = "(allowed: hf:ORG/REPO@COMMIT with the full commit hash, or hf:FOLDER for a folder inside the suite's folder)"
UNPINNED = "there is no such folder in the suite's folder, and a repository needs its commit"
MOVES = "is not a full commit hash (40 hexadecimal digits): a branch can move"
REFUSED = {
    "'hf:org/repo'": f"'hf:org/repo': {UNPINNED} {ALLOWED}",
    "'hf:org/repo@main'": f"'hf:org/repo@main': the revision 'main' {MOVES} {ALLOWED}",
    f"'hf:org/repo@{COMMIT[:12]}'": f"'hf:org/repo@{COMMIT[:12]}': the revision {COMMIT[:12]!r} {MOVES} {ALLOWED}",
    f"'hf:a/b/c@{COMMIT}'": f"'a/b/c' is not the name of a repository, ORG/REPO {ALLOWED}",
    "'hf:'": "'hf:': the path is empty (allowed: a path inside the suite's folder)",
    "'hf:/etc'": "'hf:/etc': the path '/etc' is absolute (allowed: a path inside the suite's folder)",
    "'hf:../models'": "'hf:../models': the path '../models' leaves the suite's folder (allowed: a path inside it)",
    "{name: 'hf:tiny', path: tiny}": "'hf:tiny' says already where the model lies: leave it out",
    "{name: 'hf:tiny', revision: main}": "'hf:tiny' says already where the model lies: leave it out",
    "{name: 'hf:tiny', windows: 3}": "unknown option 'windows' of causal_lm: did you mean 'window'?",
}


@pytest.fixture(autouse=True)
def builtin_names(names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for attribute, known in BUILTIN.items():
        monkeypatch.setattr(registry, attribute, known)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Suite]:
    from qbench.suite.load import load_suite

    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "tiny").symlink_to(tmp_path / "models" / "tiny")

    def load(model: str) -> Suite:
        file = tmp_path / "s.yaml"
        file.write_text(SUITE.format(model=model))
        return load_suite(str(file))

    return load


def options_of(suite: Suite) -> dict[str, Any]:
    (model,) = suite.matrix[0].models
    return model.model_dump(exclude_unset=True)


def test_a_short_name_is_causal_lm_written_shorter(load: Callable[[str], Suite], tmp_path: Path) -> None:
    named = {"name": "causal_lm", "path": tmp_path / "models" / "tiny"}
    pinned = {"name": "causal_lm", "repo": "org/repo", "revision": COMMIT}
    assert options_of(load("'hf:models/tiny'")) == options_of(load("{name: causal_lm, path: models/tiny}")) == named
    assert options_of(load(f"'hf:org/repo@{COMMIT}'")) == pinned
    assert options_of(load(f"'hf:gpt2@{COMMIT}'")) == {**pinned, "repo": "gpt2"}
    suite = load("{name: 'hf:models/tiny', window: 64, dtype: bfloat16, title: Tiny}")
    assert options_of(suite) == {**named, "window": 64, "dtype": "bfloat16", "title": "Tiny"}
    assert suite.matrix[0].models[0].label() == "Tiny"
    assert load("'hf:models/tiny'").matrix[0].models[0].label() == "tiny"


def test_a_folder_is_taken_where_there_is_one_even_if_it_is_called_like_a_repository(
    load: Callable[[str], Suite], tmp_path: Path
) -> None:
    for name in ("org/repo", "org/repo@main"):
        (tmp_path / name).mkdir(parents=True)
        assert options_of(load(f"'hf:{name}'"))["path"] == tmp_path / name


def test_a_preset_can_hold_a_short_name(load: Callable[[str], Suite], tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SUITE.format(model="{preset: small, window: 32}") + "presets: {small: {name: 'hf:tiny'}}\n")
    from qbench.suite.load import load_suite

    assert options_of(load_suite(str(file)))["window"] == 32


@pytest.mark.parametrize("model", REFUSED)
def test_what_is_refused(load: Callable[[str], Suite], model: str) -> None:
    with pytest.raises(SuiteError, match=re.escape(REFUSED[model])) as caught:
        load(model)
    assert len(str(caught.value).splitlines()) == 1


def test_a_suite_made_in_python_may_name_any_folder(tmp_path: Path) -> None:
    spec = resolve_entry(f"hf:{tmp_path}", registry.MODELS, None, has_paths=True)
    assert isinstance(spec, CausalLM) and spec.path == tmp_path


def test_other_axes_have_no_such_names(load: Callable[[str], Suite], tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SUITE.format(model="llama-1m").replace("[absmax]", "['hf:tiny']"))
    from qbench.suite.load import load_suite

    with pytest.raises(SuiteError, match="unknown quantizer 'hf:tiny'"):
        load_suite(str(file))


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (f"hf:org/repo@{COMMIT}", True),
        ("hf:models/tiny", True),
        ({"name": "hf:models/tiny", "window": 64, "dtype": "float16"}, True),
        ("hf:", False),
        ("hub:models/tiny", False),
        ({"name": "hf:models/tiny", "path": "models/tiny"}, False),
        ({"name": "hf:models/tiny", "phase": "stable"}, False),
    ],
)
def test_the_schema_knows_them(model: Any, fits: bool) -> None:
    suite = {"name": "s", "matrix": {"models": [model], "quantizers": ["absmax"], "bits": [4], "methods": ["rtn"]}}
    validator = jsonschema.Draft7Validator(suite_schema(built_in=True))
    assert (list(validator.iter_errors(suite)) == []) is fits

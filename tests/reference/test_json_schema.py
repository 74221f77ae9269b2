"""The shipped schema is the one that the code makes, and knows every suite and every example there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from qbench.reference.json_schema import SHIPPED, render, suite_schema
from qbench.registry import METHODS, MODELS, PROBES, QUANTIZERS, Registry
from qbench.suite.load import list_suites
from qbench.suite.source import read_value

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(SHIPPED.read_text(encoding="utf-8"))
EXAMPLES = {
    f"{page.name}:{text.splitlines()[0]}": text
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for text in re.findall(r"```yaml\n((?:#[^\n]*\n)*name: .*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    if "matrix:" in text and "runs-on:" not in text  # a workflow has a matrix too
}
KINDS = pytest.mark.parametrize("known", [MODELS, QUANTIZERS, METHODS, PROBES], ids=lambda known: known.kind)


def test_the_shipped_schema_is_what_the_code_says() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == render(suite_schema(built_in=True)), "run nox -s docs -- --write"


def test_it_is_of_draft_7_and_whole() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    text = json.dumps(SCHEMA)
    named = set(re.findall(r'"\$ref": "#/definitions/([^"]+)"', text))
    assert named == set(SCHEMA["definitions"])
    # What draft 7 calls otherwise, and what it does not read beside a reference.
    assert not re.search(r'"(\$defs|prefixItems|dependentSchemas|unevaluatedProperties)"', text)
    assert not re.search(r'"\$ref": "[^"]+",', text)


@pytest.mark.parametrize("name", list_suites())
def test_shipped_suites_are_sound_and_name_their_schema(name: str) -> None:
    file = list_suites()[name]
    text = file.read_text(encoding="utf-8")
    jsonschema.Draft7Validator(SCHEMA).validate(read_value(text))
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named and (file.parent / named[1]).resolve() == SHIPPED.resolve()


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_pages_are_sound(example: str) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(read_value(EXAMPLES[example]))


@KINDS
def test_every_option_is_explained_and_has_its_default(known: Registry) -> None:
    for name in known.names():
        if known.origin(name) != "built in":
            continue
        spec = known.get(name)
        (options,) = [
            one["properties"]
            for title, one in SCHEMA["definitions"].items()
            if title.startswith(f"{known.kind}.") and name in one["properties"]["name"]["enum"]
        ]
        assert set(options) == {*spec.model_fields, "preset"}
        for option, field in spec.model_fields.items():
            if option != "name":
                assert options[option]["description"].strip(), f"{name}.{option}"
                assert ("default" in options[option]) is not field.is_required()
                if not field.is_required():
                    given = {"name": name, option: options[option]["default"]}
                    plain = {"name": name, "title": "t", "path": "p", "model": "resnet18"}
                    needed = {key: value for key, value in plain.items() if key in spec.model_fields}
                    needed.pop("path") if name == "torchvision" else None
                    made = spec.model_validate({**needed, **given} if option != "path" else {**given, **needed})
                    assert option == "path" or getattr(made, option) == field.get_default(call_default_factory=True)


def test_the_verb_prints_it_and_loads_no_torch() -> None:
    program = (
        "import sys\nfrom qbench.cli import main\nsys.argv = ['qbench', 'schema']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["definitions"].keys() >= SCHEMA["definitions"].keys()


def test_the_verb_knows_what_a_suite_s_plugins_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qbench.cli import main

    monkeypatch.chdir(tmp_path)
    for arguments in (["new", "quantizer", "own_clip"], ["schema", "--suite", "own_clip_suite.yaml"]):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["qbench", *arguments])
        assert main() == 0
    printed = json.loads(capsys.readouterr().out)
    assert "own_clip" in printed["definitions"]["known_quantizer"]["else"]["enum"]
    suite = yaml.safe_load(Path("own_clip_suite.yaml").read_text(encoding="utf-8"))
    for schema in (printed, SCHEMA):
        jsonschema.Draft7Validator(schema).validate(suite)

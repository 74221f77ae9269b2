"""A GGUF file becomes a folder with the same model in it, whose hash is of its tensors alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qbench.errors import AssetError
from qbench.tasks import tokenizer
from qbench.tasks.causal_lm import CausalLM
from qbench.tasks.gguf_checkpoint import WEIGHTS, config_sha256, convert_apart, tensors_sha256

from .gguf_toys import make_llama, write_gguf


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return make_llama()


@pytest.fixture(scope="module")
def folder(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gguf")
    write_gguf(model, place / "tiny.gguf")
    (place / "copy").mkdir()
    convert_apart(place / "tiny.gguf", place / "copy")
    return place / "copy"


def test_the_copy_computes_what_the_file_says_and_has_no_mark(model: torch.nn.Module, folder: Path) -> None:
    task = CausalLM(name="causal_lm", path=folder, dtype="float32").load(0, "cpu")
    found = dict(task.model.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in model.named_parameters())
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(task.model(tokens).logits, model(tokens).logits)
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    text = "It was the best of times, in 1859:\n  it was the worst."
    assert task.tokenizer(text)["input_ids"] == tokenizer.load_tokenizer().encode(text).ids


def test_rows_of_the_copy_lie_on_sixteen_levels_a_group(folder: Path) -> None:
    weight = load_file(folder / WEIGHTS)["model.layers.1.mlp.down_proj.weight"]
    assert max(len(group.unique()) for group in weight.view(-1, 32)) == 16


def test_the_hash_is_of_names_types_shapes_and_bytes_and_not_of_the_head(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    first = tensors_sha256(folder / WEIGHTS)
    name = "model.norm.weight"
    changed = {
        "bytes": {**tensors, name: tensors[name] + 1},
        "shape": {**tensors, name: tensors[name].view(1, -1)},
        "type": {**tensors, name: tensors[name].double()},
        "name": {**{key: value for key, value in tensors.items() if key != name}, "norm": tensors[name]},
    }
    for what, other in changed.items():
        save_file(other, tmp_path / what)
        assert tensors_sha256(tmp_path / what) != first, what
    save_file(dict(reversed(tensors.items())), tmp_path / "head", metadata={"said": "by another release"})
    assert tensors_sha256(tmp_path / "head") == first


def test_the_hash_of_a_configuration_leaves_out_who_wrote_it(folder: Path, tmp_path: Path) -> None:
    config, other = json.loads((folder / "config.json").read_text()), tmp_path / "config.json"
    other.write_text(json.dumps({**config, "transformers_version": "0.0"}, indent=4))
    assert config_sha256(other) == config_sha256(folder / "config.json")
    other.write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert config_sha256(other) != config_sha256(folder / "config.json")


def test_what_is_no_gguf_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(AssetError, match=r"^bad.gguf cannot be converted: .+$") as caught:
        convert_apart(tmp_path / "bad.gguf", tmp_path)
    assert len(str(caught.value).splitlines()) == 1

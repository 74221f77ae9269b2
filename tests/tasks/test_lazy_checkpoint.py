"""Tensors of a checkpoint are read by name, from one file or several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qbench.errors import AssetError
from qbench.tasks.lazy_checkpoint import LazyCheckpoint

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b.weight": torch.ones(4, dtype=torch.bfloat16)}


def in_several(folder: Path) -> Path:
    index = {}
    for place, (name, tensor) in enumerate(TENSORS.items()):
        index[name] = f"model-{place}.safetensors"
        save_file({name: tensor}, folder / index[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_from_one_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    checkpoint = LazyCheckpoint(tmp_path)
    assert checkpoint.names() == frozenset(TENSORS)
    found = {name: tensor.clone() for name, tensor in checkpoint.read(["b.weight", "a.weight"])}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert list(checkpoint.read([])) == []


def test_from_several(tmp_path: Path) -> None:
    checkpoint = LazyCheckpoint(in_several(tmp_path))
    assert checkpoint.names() == frozenset(TENSORS)
    assert [name for name, _ in checkpoint.read(["b.weight"])] == ["b.weight"]


def test_without_weights(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"holds neither model\.safetensors nor model\.safetensors\.index\.json$"):
        LazyCheckpoint(tmp_path)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    checkpoint = LazyCheckpoint(in_several(tmp_path))
    file = tmp_path / "model-1.safetensors"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(AssetError, match=r"model-1\.safetensors cannot be read: "):
        list(checkpoint.read(["b.weight"]))

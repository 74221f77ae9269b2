"""The embedded checkpoints: pinned, whole, and named when they are not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import pytest

from qbench.errors import AssetError, UnknownNameError
from qbench.tasks import zoo

SHIPPED = [
    (name, seed, phase)
    for name, model in zoo.models().items()
    for seed, phases in model.sha256.items()
    for phase in phases
]


@pytest.mark.parametrize(("name", "seed", "phase"), SHIPPED)
def test_every_pinned_checkpoint_is_shipped(name: str, seed: int, phase: zoo.Phase) -> None:
    assert zoo.require_checkpoint(name, seed, phase) == zoo.models()[name].sha256[seed][phase]


def test_every_shipped_checkpoint_is_pinned_in_both_phases() -> None:
    files = {path.relative_to(zoo.FOLDER) for path in zoo.FOLDER.rglob("*.safetensors")}
    assert files == {zoo.checkpoint_path(*shipped).relative_to(zoo.FOLDER) for shipped in SHIPPED}
    for name, model in zoo.models().items():
        assert set(model.sha256) <= set(model.seeds), name
        for phases in model.sha256.values():
            assert set(phases) == set(get_args(zoo.Phase)), name


def test_an_unknown_model() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown zoo model 'llama-1b': did you mean 'llama-1m'\? "):
        zoo.model("llama-1b")


def test_a_seed_that_was_not_trained() -> None:
    with pytest.raises(AssetError) as caught:
        zoo.require_checkpoint("llama-1m", 77, "decayed")
    assert str(caught.value) == "no decayed checkpoint of llama-1m, seed 77, is shipped (shipped seeds: 0, 1, 2)"


def test_a_checkpoint_that_was_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = zoo.checkpoint_path("llama-1m", 0, "decayed")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    bad = zoo.checkpoint_path("llama-1m", 0, "decayed")
    with pytest.raises(AssetError, match=r"^no decayed checkpoint of llama-1m, seed 0, is shipped"):
        zoo.require_checkpoint("llama-1m", 0, "decayed")
    bad.parent.mkdir(parents=True)
    shutil.copy(good, bad)
    assert zoo.require_checkpoint("llama-1m", 0, "decayed")
    with bad.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(AssetError) as caught:
        zoo.require_checkpoint("llama-1m", 0, "decayed")
    pinned = zoo.model("llama-1m").sha256[0]["decayed"]
    assert str(caught.value).startswith(f"{bad} has sha256 ")
    assert str(caught.value).endswith(f", pinned is {pinned}: reinstall qbench")


def test_a_recipe_counts_its_tokens_and_its_decay() -> None:
    recipe = zoo.Recipe(steps=1000, batch_size=8, sequence_length=64, learning_rate=1e-3, decay_share=0.25)
    assert (recipe.decay_start, recipe.tokens) == (750, 512_000)

"""Pretraining: the schedule, two checkpoints, and a killed run that ends like an unbroken one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qbench.errors import AssetError, DivergedError
from qbench.tasks import corpus, pretrain, pretrain_language, zoo
from qbench.tasks.llama import load_llama
from qbench.tasks.pretrain import Progress

STEPS = 16


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> zoo.ZooModel:
    """Let the zoo hold one model that trains in a moment, on a few documents of the corpus."""
    model = zoo.ZooModel(
        about="tiny",
        seeds=(0,),
        architecture=zoo.Architecture(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2),
        recipe=zoo.Recipe(steps=STEPS, batch_size=4, sequence_length=32, learning_rate=0.02, warmup_steps=2),
    )
    few = {split: corpus.load(split)[:3] for split in corpus.SPLITS}
    monkeypatch.setattr(zoo, "models", lambda: {"tiny": model})
    monkeypatch.setattr(corpus, "load", lambda split: few[split])
    monkeypatch.setattr(pretrain, "_SAVE_EVERY", 3)
    monkeypatch.setattr(pretrain_language, "_HELD_OUT_WINDOWS", 16)
    return model


def stop_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def test_a_training_writes_both_checkpoints_and_the_loss_falls(tiny: zoo.ZooModel, tmp_path: Path) -> None:
    result = pretrain.pretrain("tiny", 0, tmp_path)
    assert {"stable.safetensors", "decayed.safetensors", "training.json"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "state.pt").exists()
    assert json.loads((tmp_path / "training.json").read_text()) == result
    assert [row["step"] for row in result["curve"]] == [3, 6, 9, 12, 15, 16]
    losses = [row["held_out_loss"] for row in result["curve"]]
    assert losses[-1] < losses[0] < math.log(1024) + 0.1
    assert result["curve"][-1]["train_loss"] < result["curve"][0]["train_loss"]
    assert result["tokens"] == STEPS * 4 * 32
    stable, decayed = (
        load_llama(tiny.architecture, tmp_path / f"{name}.safetensors") for name in ("stable", "decayed")
    )
    assert not torch.equal(stable.model.norm.weight, decayed.model.norm.weight)


@pytest.mark.parametrize("kills", [(4,), (12,), (7, 13, 16)])
def test_a_killed_training_ends_like_an_unbroken_one(
    tiny: zoo.ZooModel, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    whole = pretrain.pretrain("tiny", 0, tmp_path / "whole")
    for step in kills:
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain("tiny", 0, tmp_path / "broken", report=stop_at(step))
        assert not (tmp_path / "broken" / "decayed.safetensors").exists()
        torch.manual_seed(step)  # whatever the process did in between
    resumed = pretrain.pretrain("tiny", 0, tmp_path / "broken")
    for name in ("stable.safetensors", "decayed.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert resumed["curve"] == whole["curve"]


def test_bfloat16_products_train_float32_weights(
    tiny: zoo.ZooModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain.pretrain("tiny", 0, tmp_path / "float32")
    narrow = tiny.model_copy(update={"recipe": tiny.recipe.model_copy(update={"precision": "bfloat16"})})
    monkeypatch.setattr(zoo, "models", lambda: {"tiny": narrow})
    types: set[torch.dtype] = set()
    real = pretrain_language.checkpoint_state
    monkeypatch.setattr(
        pretrain_language,
        "checkpoint_state",
        lambda model: types.update(p.dtype for p in model.parameters()) or real(model),
    )
    result = pretrain.pretrain("tiny", 0, tmp_path / "bfloat16")
    assert types == {torch.float32}
    first, second = (run["curve"][-1]["held_out_loss"] for run in (whole, result))
    assert first != second
    assert first == pytest.approx(second, abs=0.02)


def test_a_seed_makes_its_own_model(tiny: zoo.ZooModel, tmp_path: Path) -> None:
    for seed in (0, 1):
        pretrain.pretrain("tiny", seed, tmp_path / str(seed))
    first, second = ((tmp_path / str(seed) / "decayed.safetensors").read_bytes() for seed in (0, 1))
    assert first != second


def test_a_training_that_diverges_says_so(tiny: zoo.ZooModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pretrain_language.next_token_loss
    monkeypatch.setattr(pretrain_language, "next_token_loss", lambda model, tokens: real(model, tokens) * math.nan)
    with pytest.raises(DivergedError, match=r"^pretraining tiny \(seed 0\) diverged before step 3$"):
        pretrain.pretrain("tiny", 0, tmp_path)
    assert not (tmp_path / "state.pt").exists()


def test_the_loss_that_is_trained_is_next_token_cross_entropy(tiny: zoo.ZooModel) -> None:
    model = load_llama(zoo.Architecture(**ARCHITECTURE), zoo.checkpoint_path("llama-1m", 0, "decayed"))
    tokens = torch.arange(60).reshape(2, 30)
    with torch.no_grad():
        log_p = model(input_ids=tokens).logits.double().log_softmax(-1)
        expected = -sum(log_p[row, place - 1, tokens[row, place]] for row in range(2) for place in range(1, 30)) / 58
        assert float(pretrain_language.next_token_loss(model, tokens)) == pytest.approx(float(expected), abs=1e-6)


ARCHITECTURE = zoo.language_model("llama-1m").architecture.model_dump()


@pytest.mark.parametrize("name", sorted(zoo.models()))
def test_every_shipped_training_kept_what_it_measured(name: str) -> None:
    model = zoo.models()[name]
    if isinstance(model, zoo.ZooClassifierModel):
        try:
            model.images.fingerprint()
        except AssetError as error:  # large data, which are fetched by name
            assert "is not in the cache" in str(error)
            pytest.skip(str(error))
    for seed in model.sha256:
        path = zoo.FOLDER / name / f"seed{seed}" / "training.json"
        result = json.loads(path.read_text())
        assert (result["name"], result["seed"]) == (name, seed)
        assert type(model.recipe)(**result["recipe"]) == model.recipe
        if isinstance(model, zoo.ZooModel):
            assert (result["tokens"], result["corpus"]) == (model.recipe.tokens, dict(corpus.PINNED))
        else:
            assert (result["images"], result["data"]) == (model.recipe.samples, model.images.fingerprint())
        assert result["curve"][-1]["step"] == model.recipe.steps
        close = pretrain.closeness(name, seed, result)
        assert close is not None and close["difference"] == 0
    assert pretrain.closeness(name, 77, {}) is None

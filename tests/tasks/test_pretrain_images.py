"""Pretraining of image classifiers: the same loop, on images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from qbench.tasks import pretrain, zoo
from qbench.tasks.image_models import load_classifier
from qbench.tasks.image_zoo import ImageRecipe, ResNet
from qbench.tasks.images import Digits
from qbench.tasks.pretrain import Progress
from qbench.tasks.pretrain_images import ImageTrainee

STEPS = 24


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> zoo.ZooClassifierModel:
    model = zoo.ZooClassifierModel(
        about="tiny",
        seeds=(0,),
        images=Digits(),
        architecture=ResNet(kind="resnet", blocks_per_stage=1, width=4),
        recipe=ImageRecipe(steps=STEPS, batch_size=16, learning_rate=0.02, warmup_steps=2, shift=1),
    )
    monkeypatch.setattr(zoo, "models", lambda: {"tiny": model})
    monkeypatch.setattr(pretrain, "_SAVE_EVERY", 5)
    return model


def stop_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def test_a_killed_training_ends_like_an_unbroken_one(tiny: zoo.ZooClassifierModel, tmp_path: Path) -> None:
    whole = pretrain.pretrain("tiny", 0, tmp_path / "whole")
    for step in (7, 17):
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain("tiny", 0, tmp_path / "broken", report=stop_at(step))
        torch.manual_seed(step)
    resumed = pretrain.pretrain("tiny", 0, tmp_path / "broken")
    for name in ("stable.safetensors", "decayed.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert resumed["curve"] == whole["curve"]
    assert whole["images"] == STEPS * 16 and whole["data"] == Digits().fingerprint()


def test_what_is_measured_is_what_a_loaded_checkpoint_does(tiny: zoo.ZooClassifierModel, tmp_path: Path) -> None:
    result = pretrain.pretrain("tiny", 0, tmp_path)
    losses = [row["held_out_loss"] for row in result["curve"]]
    assert losses[-1] < losses[0]
    trainee = ImageTrainee("tiny", 0)
    loaded = load_classifier(tiny.architecture, 1, 8, 10, tmp_path / "decayed.safetensors")
    found = trainee.measure(loaded)
    assert found["held_out_loss"] == pytest.approx(losses[-1], abs=0.05)  # parameters were rounded to bfloat16
    held = Digits().load("evaluation")
    batch = (torch.from_numpy(held.images).float() / 255 - trainee._normalise.mean) / trainee._normalise.deviation
    with torch.no_grad():
        logits = loaded(batch)
    labels = torch.from_numpy(held.labels)
    assert found["held_out_loss"] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-4)
    assert found["held_out_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    card = (tmp_path / "README.md").read_text()
    assert f"{100 * result['curve'][-1]['held_out_accuracy']:.2f} % right" in card
    assert "Made again by `qbench pretrain tiny --seed 0`" in card

"""An image task: its splits, what it measures, and what it hands to methods."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from qbench.errors import AssetError, CellError
from qbench.tasks.image_classifier import ZooClassifier
from qbench.tasks.image_data import ImageBatch
from qbench.tasks.image_task import ImageTask


def spec(**options: object) -> ZooClassifier:
    return ZooClassifier(name="mlp-digits", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return spec(evaluation_images=205).load(0, "cpu")


def test_loss_and_accuracy_are_those_of_an_independent_implementation(task: ImageTask) -> None:
    images, labels = task.evaluation
    held = spec().source().load("train").images / 255
    normalised = (images.double().numpy() / 255 - held.mean()) / held.std()
    weights = {name: value.double().numpy() for name, value in task.model.state_dict().items()}
    x = normalised.reshape(len(images), -1)
    for layer in ("hidden1.linear", "hidden2.linear"):
        x = np.maximum(x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
    logits = x @ weights["head.weight"].T + weights["head.bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    found = task.evaluate(task.model, ("loss",)).metrics
    assert found["loss/cross_entropy"] == pytest.approx(log_loss(labels.numpy(), p, labels=range(10)), rel=1e-3)
    assert found["accuracy/top1"] == accuracy_score(labels.numpy(), p.argmax(axis=1)) > 0.95


def test_the_groups_of_an_evaluation_make_up_its_loss(task: ImageTask) -> None:
    found = task.evaluate(task.model, ("loss", "accuracy"))
    assert [count for _, count, _ in found.documents] == [10] * 20 + [5]
    assert found.documents[0][0] == "images 0-9" and found.documents[-1][0] == "images 200-204"
    assert len({name for name, _, _ in found.documents}) == 21
    assert sum(loss for _, _, loss in found.documents) / 205 == pytest.approx(found.metrics["loss/cross_entropy"])


def test_a_model_that_knows_nothing_has_chance_loss(task: ImageTask) -> None:
    class Knows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 10)

    found = task.evaluate(Knows(), ("loss",)).metrics
    assert found["loss/cross_entropy"] == pytest.approx(task.facts()["chance_loss"]) == pytest.approx(math.log(10))
    assert found["accuracy/top1"] == pytest.approx(task.facts()["chance_accuracy"], abs=0.05)


def test_a_model_that_returns_no_tensor_is_told_of(task: ImageTask) -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(
        CellError, match=r"^the model returns tuple for a batch of images \(allowed: logits, a tensor\)$"
    ):
        task.evaluate(Pair(), ("loss",))


def test_calibration_is_drawn_by_the_seed_from_its_own_split() -> None:
    tasks = [spec(calibration_images=60).load(seed, "cpu") for seed in (0, 0, 1)]
    first, again, other = (torch.cat(one.calibration) for one in tasks)
    assert first.shape == (60, 1, 8, 8)
    assert torch.equal(first, again) and not torch.equal(first, other)
    everything = len(spec().source().load("calibration"))
    whole = torch.cat(spec(calibration_images=everything).load(0, "cpu").calibration)
    assert len(whole) == everything
    known = {image.numpy().tobytes() for image in whole}
    assert {image.numpy().tobytes() for image in first} < known


@pytest.mark.parametrize("option", ["calibration_images", "evaluation_images"])
def test_more_images_than_there_are_cannot_be_asked_for(option: str) -> None:
    asked = spec(**{option: 451}).load(0, "cpu")
    split = option.partition("_")[0]
    with pytest.raises(AssetError, match=rf"{option}: given 451, and the {split} split has \d+ images \(allowed: 1 to"):
        getattr(asked, split)


def test_no_image_is_in_two_splits() -> None:
    splits = [spec().source().load(name).images for name in ("train", "calibration", "evaluation")]
    seen = [{image.tobytes() for image in split} for split in splits]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_the_loss_of_a_training_batch_is_cross_entropy_with_its_labels(task: ImageTask) -> None:
    batch = next(task.train_batches(16, 3))
    assert isinstance(batch, ImageBatch) and task.tokens_of(batch) == task.tokens_of(batch.images) == 16
    with torch.no_grad():
        logits, labels = task.predict(task.model, batch)
        loss = float(task.loss(task.model, batch))
    expected = -logits.log_softmax(dim=1)[range(16), labels].mean()
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert float(expected) < 0.5  # the model was trained on these


def test_images_without_labels_are_judged_by_what_the_model_finds_most_likely(task: ImageTask) -> None:
    batch = next(task.train_batches(16, 3))
    with torch.no_grad():
        logits, own = task.predict(task.model, batch.images)
        assert torch.equal(own, logits.argmax(dim=1))
        assert float(task.loss(task.model, batch.images)) == pytest.approx(
            float(task.loss(task.model, ImageBatch(batch.images, own)))
        )


def test_training_batches_depend_on_seed_alone_and_shift_only_where_asked(task: ImageTask) -> None:
    first, again, other = (list(islice(task.train_batches(8, seed), 3)) for seed in (1, 1, 2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].images, other[0].images)
    still = next(spec(shift=0).load(0, "cpu").train_batches(64, 1)).images
    moved = next(spec(shift=2).load(0, "cpu").train_batches(64, 1)).images
    assert still.shape == moved.shape and not torch.equal(still, moved)


def test_evaluation_images_are_the_same_for_all_seeds_and_spread_over_classes() -> None:
    first, second = (spec(evaluation_images=100).load(seed, "cpu").evaluation for seed in (0, 1))
    assert torch.equal(first.images, second.images)
    assert first.labels.bincount(minlength=10).min() >= 5


def test_blocks_are_the_children_in_order_whatever_the_weights(task: ImageTask) -> None:
    assert [name for name, _ in task.blocks()] == ["hidden1", "hidden2", "head"]
    assert all(module is task.model.get_submodule(name) for name, module in task.blocks())


def test_the_two_phases_are_two_models() -> None:
    stable, decayed = (spec(phase=phase).load(0, "cpu") for phase in ("stable", "decayed"))
    assert not torch.equal(stable.model.head.weight, decayed.model.head.weight)  # type: ignore[union-attr, arg-type]
    assert replace(stable.evaluate(stable.model, ()), documents=[]) != replace(
        decayed.evaluate(decayed.model, ()), documents=[]
    )


def test_evaluation_batches_are_the_evaluation_and_fewer_are_spread_over_it(task: ImageTask) -> None:
    batches = task.evaluation_batches()
    assert [len(batch.labels) for batch in batches] == [128, 77]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), task.evaluation.labels)
    with torch.no_grad():
        total = sum(float(task.loss(task.model, batch)) * task.tokens_of(batch) for batch in batches)
    loss = task.evaluate(task.model, ("loss",)).metrics["loss/cross_entropy"]
    assert total / 205 == pytest.approx(loss, rel=1e-6)
    (some,) = task.evaluation_batches(41)
    every_fifth = torch.cat([batch.images for batch in batches])[::5]
    assert torch.equal(some.images, every_fifth) and torch.equal(some.labels, task.evaluation.labels[::5])
    assert some.images.dtype == torch.float32

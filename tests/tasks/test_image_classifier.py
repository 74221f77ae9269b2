"""What a suite may say of an image model, and what becomes of it before any cell runs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qbench.methods.rtn import RoundToNearest
from qbench.registry import MODELS
from qbench.tasks import zoo
from qbench.tasks.image_classifier import ZooClassifier

CLASSIFIERS = [name for name, model in zoo.models().items() if isinstance(model, zoo.ZooClassifierModel)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_of_the_zoo_is_registered_and_measures_accuracy(name: str) -> None:
    assert MODELS.get(name) is ZooClassifier
    model = ZooClassifier(name=name)
    assert model.label() == name
    assert model.metrics == ("loss", "accuracy")
    assert model.available_seeds() == (0, 1, 2)
    assert not model.needs_hub()


@pytest.mark.parametrize("bn", ["recalibrate", "fold"])
def test_batch_norm_can_be_seen_to_only_where_there_is_some(bn: str) -> None:
    method = RoundToNearest(name="rtn", bn=bn)  # type: ignore[arg-type]
    refused = {name: ZooClassifier(name=name).refuses_method(method) for name in CLASSIFIERS}
    normed = {"resnet8-mnist", "resnet20-mnist", "mobilenet-mnist"}
    assert {name for name, reason in refused.items() if reason is None and name.endswith("-mnist")} == normed
    assert refused["vit-mnist"] == f"vit-mnist has no batch norm: there is nothing to {bn}"
    assert all(ZooClassifier(name=name).refuses_method(RoundToNearest(name="rtn")) is None for name in CLASSIFIERS)


def test_whether_a_model_has_batch_norm_is_what_its_modules_say() -> None:
    import torch

    from qbench.tasks.image_models import build_classifier

    method = RoundToNearest(name="rtn", bn="fold")
    for name in CLASSIFIERS:
        model = build_classifier(zoo.classifier(name).architecture, 1, 8 if name == "mlp-digits" else 28, 10)
        has = any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        assert has == (ZooClassifier(name=name).refuses_method(method) is None), name


def test_the_fingerprint_is_of_weights_and_images() -> None:
    first, second = (ZooClassifier(name="mlp-digits").fingerprint(seed) for seed in (0, 1))
    assert first["weights"] == zoo.classifier("mlp-digits").sha256[0]["decayed"]
    assert {key for key in first if first[key] != second[key]} == {"weights"}
    assert any(key.startswith("images") for key in first)
    stable = ZooClassifier(name="mlp-digits", phase="stable").fingerprint(0)
    assert stable["weights"] != first["weights"]


@pytest.mark.parametrize("options", [{"calibration_images": 0}, {"evaluation_images": 0}, {"shift": -1}, {"shift": 65}])
def test_counts_have_bounds(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ZooClassifier(name="mlp-digits", **options)  # type: ignore[arg-type]


def test_labels_show_what_is_not_at_its_default() -> None:
    assert ZooClassifier(name="mlp-digits", calibration_images=64).label() == "mlp-digits[calibration_images=64]"

"""torchvision's models by name: what is refused, what they are made of, and that they are whole tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from qbench.errors import AssetError
from qbench.methods.rtn import RoundToNearest
from qbench.tasks.torchvision_classifier import TorchvisionClassifier
from qbench.tasks.torchvision_names import classifier_names
from qbench.tasks.torchvision_ops import declare_missing_operators
from qbench.tasks.torchvision_task import load_torchvision


def spec(model: str = "mobilenet_v3_small", **options: object) -> TorchvisionClassifier:
    few = {"images": "digits", "size": 32, "calibration_images": 12, "evaluation_images": 12}
    return TorchvisionClassifier(name="torchvision", model=model, **{**few, **options})  # type: ignore[arg-type]


def test_an_unknown_model_is_told_when_the_suite_is_read() -> None:
    with pytest.raises(
        ValidationError, match=r"'resnet81' is no image classifier of torchvision: did you mean 'resnet18'\?"
    ):
        spec("resnet81")


@pytest.mark.parametrize("model", ["fasterrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "raft_large"])
def test_a_model_of_another_task_is_none_of_the_classifiers(model: str) -> None:
    with pytest.raises(ValidationError, match=f"'{model}' is no image classifier of torchvision"):
        spec(model)


def test_the_names_are_those_that_torchvision_lists() -> None:
    declare_missing_operators()
    from torchvision import models

    assert classifier_names() == set(models.list_models(module=models))


def test_weights_come_from_one_place() -> None:
    with pytest.raises(ValidationError, match="give either weights or path"):
        spec(weights="imagenet", path="x.safetensors")


@pytest.mark.parametrize(
    "model", ["alexnet", "convnext_tiny", "squeezenet1_1", "swin_t", "vgg11", "vgg11_bn", "vit_b_32"]
)
def test_batch_norm_is_where_the_modules_say(model: str) -> None:
    declare_missing_operators()
    from torchvision import models

    with torch.device("meta"):
        built = models.get_model(model, weights=None)
    has = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in built.modules())
    assert has == (spec(model).refuses_method(RoundToNearest(name="rtn", bn="recalibrate")) is None)
    assert spec(model).refuses_method(RoundToNearest(name="rtn")) is None


def test_the_label_tells_model_weights_and_images() -> None:
    assert (
        spec(size=None, calibration_images=256, evaluation_images=1000).label() == "mobilenet_v3_small[random,digits]"
    )
    assert spec(path=Path("a/mine.safetensors")).label().startswith("mobilenet_v3_small[mine.safetensors,digits,")


def test_a_random_model_is_its_seed_s_and_has_statistics_of_its_own_activations() -> None:
    before = torch.get_rng_state()
    first, again, other = (spec().load(seed, "cpu") for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    states = [one.model.state_dict() for one in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    assert not first.model.training
    seen: list[torch.Tensor] = []
    norm = next(module for module in first.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        first.model(first.calibration[0])
    assert torch.allclose(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-4)  # type: ignore[arg-type]


def test_it_is_a_whole_task() -> None:
    task = spec().load(0, "cpu")
    assert task.calibration[0].shape == (12, 3, 32, 32)
    found = task.evaluate(task.model, ("loss", "accuracy"))
    assert set(found.metrics) == {"loss/cross_entropy", "accuracy/top1"}
    assert task.facts()["calibration"] == "12 images of 3x32x32, calibration split"
    names = [name for name, _ in task.blocks()]
    assert names[0].startswith("features.0") and names[-1].startswith("classifier")
    assert next(task.train_batches(4, 0)).images.shape == (4, 3, 32, 32)


def test_own_weights_are_taken_whole_or_refused(tmp_path: Path) -> None:
    random = spec().load(1, "cpu").model
    file = tmp_path / "mine.safetensors"
    save_file(random.state_dict(), file)
    loaded = load_torchvision(spec(path=file), 0, "cpu").model
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in random.state_dict().items())
    with pytest.raises(AssetError, match="does not hold the weights of resnet18"):
        spec("resnet18", path=file).load(0, "cpu")
    file.write_bytes(b"nothing")
    with pytest.raises(AssetError, match="does not hold the weights"):
        spec(path=file).load(0, "cpu")
    with pytest.raises(AssetError, match=r"do not exist$"):
        spec(path=tmp_path / "none.safetensors").fingerprint(0)


def test_the_fingerprint_changes_with_the_weights_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    prints = []
    for value in (0.0, 1.0):
        save_file({"x": torch.tensor(value)}, file)
        prints.append(spec(path=file).fingerprint(0))
    assert {key for key in prints[0] if prints[0][key] != prints[1][key]} == {"weights"}


def test_imagenet_weights_want_imagenet_s_classes() -> None:
    with pytest.raises(AssetError, match=r"imagenet weights tell 1000 classes apart, the images have 10 \(allowed"):
        spec(weights="imagenet").load(0, "cpu")
    with pytest.raises(AssetError, match=r"imagenet weights tell 1000 classes apart"):  # before any download
        spec(weights="imagenet").prepare()


def test_a_vision_transformer_is_made_for_the_size_of_its_images() -> None:
    task = spec("vit_b_32", size=64, calibration_images=2, evaluation_images=2).load(0, "cpu")
    assert task.model.image_size == 64
    assert any("encoder_layer_11" in name for name, _ in task.blocks())


def test_layers_whose_weights_alone_are_used_are_told_apart() -> None:
    task = spec("swin_t", size=32, calibration_images=2, evaluation_images=2).load(0, "cpu")
    assert {name.rpartition(".")[2] for name in task.idle_layers} == {"qkv", "proj"}
    assert spec(calibration_images=2, evaluation_images=2).load(0, "cpu").idle_layers == frozenset()

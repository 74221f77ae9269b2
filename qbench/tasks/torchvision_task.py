"""Build torchvision's classifiers, and make image tasks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from qbench.errors import AssetError
from qbench.seeds import derive_seed
from qbench.tasks.image_data import Normalisation, Resizing
from qbench.tasks.image_task import ImageTask
from qbench.tasks.torchvision_ops import declare_missing_operators

if TYPE_CHECKING:
    from qbench.tasks.torchvision_classifier import TorchvisionClassifier

_CHANNELS = 3
_IMAGENET_CLASSES = 1000


def imagenet_weights(name: str) -> Any:
    """Return torchvision's default weights of a model: where they are, and what they were evaluated with."""
    return _models().get_model_weights(name).DEFAULT


def fetch_weights(spec: TorchvisionClassifier) -> None:
    """Download weights that are not on this machine yet; torchvision compares their hash with the one in their name.

    Raises
    ------
    AssetError
        The weights cannot be had, or tell other classes apart than the images have.
    """
    if spec.path is None and spec.weights == "imagenet":
        _require_imagenet_classes(spec)
        _imagenet_state(spec.model)


def load_torchvision(spec: TorchvisionClassifier, seed: int, device: str) -> ImageTask:
    """Load a model and its images; see `TorchvisionClassifier.load`."""
    train = spec.images.load("train")
    size, normalisation = spec.size, Normalisation.of(train)
    if spec.path is None and spec.weights == "imagenet":
        _require_imagenet_classes(spec)
        transforms = imagenet_weights(spec.model).transforms()
        size = size or transforms.crop_size[0]
        normalisation = Normalisation(
            *(torch.tensor(part).view(-1, 1, 1) for part in (transforms.mean, transforms.std))
        )
    to_input = Resizing(size, _CHANNELS, normalisation)
    model = _build(spec, train.classes, size or train.images.shape[-1], seed)
    task = ImageTask(model, spec.images.load, to_input, None, spec, seed, device)
    if spec.path is None and spec.weights == "random":
        _settle_statistics(task, seed)
    return task


def _require_imagenet_classes(spec: TorchvisionClassifier) -> None:
    classes = spec.images.load("train").classes
    if classes != _IMAGENET_CLASSES:
        raise AssetError(
            f"{spec.label()}: imagenet weights tell {_IMAGENET_CLASSES} classes apart, the images have {classes} "
            "(allowed with these images: weights: random, or a path)"
        )


def _models() -> Any:
    declare_missing_operators()
    from torchvision import models

    return models


def _build(spec: TorchvisionClassifier, classes: int, size: int, seed: int) -> nn.Module:
    options: dict[str, Any] = {"num_classes": classes}
    if spec.model in ("googlenet", "inception_v3"):
        # Their further heads are for training from nothing, and change what the model returns.
        options |= {"aux_logits": False, "init_weights": True}
    if spec.model.startswith("vit_"):
        options["image_size"] = size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("random-weights", spec.model, seed))
        model: nn.Module = _models().get_model(spec.model, weights=None, **options)
    if spec.path is not None:
        try:
            model.load_state_dict(load_file(spec.path))
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise AssetError(
                f"{spec.label()}: {spec.path} does not hold the weights of {spec.model}: {reason}"
            ) from None
    elif spec.weights == "imagenet":
        state = {name: value for name, value in _imagenet_state(spec.model).items() if name in model.state_dict()}
        model.load_state_dict(state)
    return model


def _imagenet_state(name: str) -> dict[str, Tensor]:
    weights = imagenet_weights(name)
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # urllib, the file system and torch each raise kinds of their own
        reason = " ".join(str(error).split())
        raise AssetError(f"the imagenet weights of {name} cannot be had from torchvision: {reason}") from error
    return state


@torch.no_grad()
def _settle_statistics(task: ImageTask, seed: int) -> None:
    """Give a fresh model batch-norm statistics of its own activations: those it starts with fit no input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("random-statistics", seed))  # of its dropout
        update_bn(task.calibration, task.model)
    task.model.eval()

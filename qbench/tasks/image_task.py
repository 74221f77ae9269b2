"""An image classifier with its data: what is calibrated, trained and evaluated on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import AssetError, CellError
from qbench.seeds import derive_seed
from qbench.tasks import zoo
from qbench.tasks.blocks import find_blocks, idle_layers
from qbench.tasks.evaluation import Evaluation, announce
from qbench.tasks.image_data import ImageBatch, Normalisation, stream
from qbench.tasks.image_models import load_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qbench.tasks.image_classifier import ImageModelSpec, ZooClassifier
    from qbench.tasks.image_splits import LabelledImages, Split

_BATCH = 128
_GROUP = 10


class ImageTask:
    """A classifier with calibration, training and evaluation images.

    Parameters
    ----------
    model : nn.Module
        Images of shape (n, channels, height, width) to logits of shape (n, classes), in float32.
    load : callable
        ``load(split)`` gives the images of a split, of the size that the model takes.
    normalise : callable
        From uint8 pixels of shape (n, channels, height, width) to what the model takes.
    blocks : sequence of str or None
        Names of the parts that are run on their own, in the order in which they are called; None where running the
        model is to show them, and which layers it leaves alone.
    spec : ImageModelSpec
        Counts and augmentation.
    seed : int
        The cell's seed.
    device : str
        Torch device.
    """

    def __init__(
        self,
        model: nn.Module,
        load: Callable[[Split], LabelledImages],
        normalise: Callable[[Tensor], Tensor],
        blocks: Sequence[str] | None,
        spec: ImageModelSpec,
        seed: int,
        device: str,
    ) -> None:
        self.model = model.to(torch.device(device)).eval()
        self._load, self._normalise, self._blocks = load, normalise, blocks
        self.spec, self.seed, self.device = spec, seed, device

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Return the blocks in the order in which they are called, with their names."""
        return [(name, self.model.get_submodule(name)) for name in self._block_names]

    @cached_property
    def idle_layers(self) -> frozenset[str]:
        """Names of layers that stay in floating point because they are not called."""
        return frozenset() if self._blocks is not None else idle_layers(self.model, self.calibration[0][:1])

    @cached_property
    def _block_names(self) -> Sequence[str]:
        if self._blocks is not None:
            return self._blocks
        return [name for name, _ in find_blocks(self.model, self.calibration[0][:1])]

    @cached_property
    def calibration(self) -> list[Tensor]:
        """Batches of images drawn from the calibration split by the cell's seed."""
        held = self._enough("calibration", "calibration_images")
        seed = derive_seed("calibration", self.spec.label(), self.seed)
        order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
        rows = order[: self.spec.calibration_images].sort().values
        images = self._normalise(torch.from_numpy(held.images)[rows])
        return [part.to(self.device) for part in images.split(_BATCH)]

    @cached_property
    def evaluation(self) -> ImageBatch:
        """Images spread evenly over the evaluation split, as bytes; the same for all seeds."""
        held = self._enough("evaluation", "evaluation_images")
        count = min(self.spec.evaluation_images, len(held))
        rows = torch.arange(count) * len(held) // count
        return ImageBatch(torch.from_numpy(held.images)[rows], torch.from_numpy(held.labels)[rows])

    def evaluation_batches(self, limit: int | None = None) -> list[ImageBatch]:
        """Return the evaluation images in batches for `loss`; at most `limit` of them, spread evenly over all."""
        announce("evaluation", self.spec.label())
        images, labels = self.evaluation
        count = len(labels) if limit is None else min(limit, len(labels))
        rows = torch.arange(count) * len(labels) // count
        return [
            ImageBatch(self._normalise(images[part]).to(self.device), labels[part].to(self.device))
            for part in rows.split(_BATCH)
        ]

    def train_batches(self, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Return augmented training batches for ever."""
        source = self.spec.source()
        batches = stream(
            self._load("train"),
            self._normalise,
            batch_size,
            seed,
            shift=self.spec.training_shift(),
            mirror=source.mirrored and self.spec.training_shift() > 0,
        )
        # Not a generator of this object's: who has it must not reach the evaluation images by it.
        device = self.device
        return (ImageBatch(batch.images.to(device), batch.labels.to(device)) for batch in batches)

    def loss(self, model: nn.Module, batch: Tensor | ImageBatch) -> Tensor:
        """Return the mean cross entropy of a batch, in nats an image."""
        return functional.cross_entropy(*self.predict(model, batch))

    def predict(self, model: nn.Module, batch: Tensor | ImageBatch) -> tuple[Tensor, Tensor]:
        """Return logits of shape (n, classes) in float32, and the classes, of shape (n,).

        Calibration images come without labels: there the class that the model itself finds most likely stands for it.
        """
        if isinstance(batch, ImageBatch):
            return _logits(model, batch.images), batch.labels
        logits = _logits(model, batch)
        return logits, logits.detach().argmax(dim=1)

    def forward(self, model: nn.Module, images: Tensor) -> object:
        """Run the model on images."""
        return model(images)

    @staticmethod
    def tokens_of(batch: Tensor | ImageBatch) -> int:
        """Return how many images a batch has."""
        return len(batch.images) if isinstance(batch, ImageBatch) else len(batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Evaluation:
        """Measure a model on the evaluation split.

        Parameters
        ----------
        model : nn.Module
            The model, with whatever weights it has now.
        metrics : tuple of str
            Of ``loss`` and ``accuracy``; both come from one pass, and both are always measured.

        Returns
        -------
        Evaluation
            Its documents are groups of ten images that follow one another: the images are independent, and a row each
            would be most of a record.
        """
        announce("evaluation", self.spec.label())
        images, labels = self.evaluation
        losses, right = [], 0
        for pixels, wanted in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
            logits = _logits(model, self._normalise(pixels).to(self.device))
            given = wanted.to(self.device)
            losses.append(functional.cross_entropy(logits, given, reduction="none"))
            right += int((logits.argmax(dim=1) == given).sum())
        each = torch.cat(losses).double().cpu()
        groups = [
            (f"images {index * _GROUP}-{index * _GROUP + len(part) - 1}", len(part), float(part.sum()))
            for index, part in enumerate(each.split(_GROUP))
        ]
        found = {"loss/cross_entropy": float(each.mean()), "accuracy/top1": right / len(labels)}
        return Evaluation(found, groups)

    def facts(self) -> dict[str, Any]:
        """Return what a table must say of the model and its data."""
        classes = self._load("evaluation").classes
        shape = "x".join(str(side) for side in self.calibration[0].shape[1:])
        return {
            "chance_loss": math.log(classes),
            "chance_accuracy": 1 / classes,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "calibration": f"{sum(map(len, self.calibration))} images of {shape}, calibration split",
            "evaluation": f"{len(self.evaluation.labels)} images of {shape}, evaluation split",
        }

    def _enough(self, split: Split, option: str) -> LabelledImages:
        held, asked = self._load(split), getattr(self.spec, option)
        if option in self.spec.model_fields_set and asked > len(held):
            raise AssetError(
                f"{self.spec.label()}: {option}: given {asked}, and the {split} split has {len(held)} images "
                f"(allowed: 1 to {len(held)})"
            )
        return held


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    found = model(images)
    if not isinstance(found, Tensor):
        raise CellError(f"the model returns {type(found).__name__} for a batch of images (allowed: logits, a tensor)")
    return found.float()


def load_zoo(spec: ZooClassifier, seed: int, device: str) -> ImageTask:
    """Load an embedded classifier; see `ZooClassifier.load`."""
    zoo.require_checkpoint(spec.name, seed, spec.phase)
    entry, train = zoo.classifier(spec.name), spec.source().load("train")
    _, channels, size, _ = train.images.shape
    path = zoo.checkpoint_path(spec.name, seed, spec.phase)
    model = load_classifier(entry.architecture, channels, size, train.classes, path)
    blocks = [name for name, _ in model.named_children()]
    return ImageTask(model, spec.source().load, Normalisation.of(train), blocks, spec, seed, device)

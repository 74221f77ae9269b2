"""Image classifiers as tasks: the embedded zoo, and torchvision's models by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.spec import Spec
from qbench.tasks import zoo
from qbench.tasks.image_zoo import MobileNet, ResNet

if TYPE_CHECKING:
    from qbench.tasks.image_task import ImageTask
    from qbench.tasks.images import ImageSource


class ImageModelSpec(Spec):
    """What every image task can be told.

    Attributes
    ----------
    calibration_images : int
        Images drawn at random from the calibration split.
    evaluation_images : int
        Images spread evenly over the evaluation split.
    shift : int or None
        Training images are moved by up to so many pixels each way, and mirrored where their source allows it; 0 leaves
        them as they are. None is what a model of the zoo was trained with, and 2 for any other.
    """

    sources: ClassVar[tuple[str, ...]] = tuple(
        f"qbench.tasks.{module}"
        for module in (
            "evaluation",
            "image_cifar",
            "image_data",
            "image_folder",
            "image_idx",
            "image_models",
            "image_pixels",
            "image_repository",
            "image_source",
            "image_splits",
            "image_task",
            "images",
        )
    )
    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    calibration_images: Annotated[int, Field(ge=1)] = 256
    evaluation_images: Annotated[int, Field(ge=1)] = 1000
    shift: Annotated[int, Field(ge=0, le=64)] | None = None

    def source(self) -> ImageSource:
        """Return where its images come from."""
        raise NotImplementedError

    def training_shift(self) -> int:
        """Return by how many pixels training images are moved at most."""
        return 2 if self.shift is None else self.shift

    def load(self, seed: int, device: str) -> ImageTask:
        """Load the model and its images.

        Parameters
        ----------
        seed : int
            The cell's seed.
        device : str
            Torch device.

        Raises
        ------
        AssetError
            A file is missing (the message names the command that brings it) or is not what was pinned.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Bring what the task reads into the cache, before any cell runs.

        Raises
        ------
        AssetError
            Something is missing and cannot be fetched; the message names the command that brings it.
        """
        raise NotImplementedError

    def needs_hub(self) -> bool:
        """Return whether the images come from a repository."""
        return False

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return hashes of everything that is read: weights, and the splits of the images.

        Raises
        ------
        AssetError
            A file is missing.
        """
        raise NotImplementedError


class ZooClassifier(ImageModelSpec):
    """An embedded classifier; a cell's seed is the training seed.

    Attributes
    ----------
    phase : str
        ``decayed``: the finished model; ``stable``: before the learning rate fell.
    """

    phase: zoo.Phase = "decayed"

    def source(self) -> ImageSource:
        """Return what it was trained on."""
        return zoo.classifier(self.name).images

    def training_shift(self) -> int:
        """Return by how many pixels training images are moved at most: as in its own training, unless told."""
        return zoo.classifier(self.name).recipe.shift if self.shift is None else self.shift

    def available_seeds(self) -> tuple[int, ...]:
        """Return the training seeds there are."""
        return zoo.classifier(self.name).seeds

    def refuses_method(self, method: Spec) -> str | None:
        """Return why a method that does something about batch norm cannot be used on a model that has none."""
        architecture, bn = zoo.classifier(self.name).architecture, getattr(method, "bn", "keep")
        normed = isinstance(architecture, MobileNet) or (
            isinstance(architecture, ResNet) and architecture.norm == "batch"
        )
        return None if normed or bn == "keep" else f"{self.name} has no batch norm: there is nothing to {bn}"

    def load(self, seed: int, device: str) -> ImageTask:
        """Load the checkpoint of training seed `seed`; see `ImageModelSpec.load`."""
        from qbench.tasks.image_task import load_zoo

        return load_zoo(self, seed, device)

    def prepare(self) -> None:
        """Fetch its images where they are missing."""
        self.source().prepare()

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return the hashes of the checkpoint and the images."""
        weights = zoo.require_checkpoint(self.name, seed, self.phase)
        return {"weights": weights, **self.source().fingerprint()}

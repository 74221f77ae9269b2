"""Image classifiers as tasks: the embedded zoo, and torchvision's models by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.tasks import zoo
from qbench.tasks.image_zoo import MobileNet, ResNet
from qbench.tasks.model_spec import ModelSpec

if TYPE_CHECKING:
    from qbench.tasks.image_task import ImageTask
    from qbench.tasks.images import ImageSource


class ImageModelSpec(ModelSpec):
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
            "blocks",
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

    def has_batch_norm(self) -> bool:
        """Return whether its architecture has any."""
        architecture = zoo.classifier(self.name).architecture
        return isinstance(architecture, MobileNet) or (
            isinstance(architecture, ResNet) and architecture.norm == "batch"
        )

    def load(self, seed: int, device: str) -> ImageTask:
        """Load the checkpoint of training seed `seed`; see `ModelSpec.load`."""
        from qbench.tasks.image_task import load_zoo

        return load_zoo(self, seed, device)

    def prepare(self) -> None:
        """Fetch its images where they are missing."""
        self.source().prepare()

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return the hashes of the checkpoint, the architecture and the images."""
        weights = zoo.require_checkpoint(self.name, seed, self.phase)
        return {"weights": weights, "design": zoo.design_sha256(self.name), **self.source().fingerprint()}

"""torchvision's image classifiers by name."""

from __future__ import annotations

import difflib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from qbench import atomic
from qbench.errors import AssetError
from qbench.tasks.image_classifier import ImageModelSpec
from qbench.tasks.images import ImagesField, ImageSource, Mnist5k
from qbench.tasks.torchvision_names import classifier_names

if TYPE_CHECKING:
    from qbench.tasks.image_task import ImageTask


_WITHOUT_BATCH_NORM = ("alexnet", "convnext", "squeezenet", "swin", "vgg", "vit")


class TorchvisionClassifier(ImageModelSpec):
    """A model of ``torchvision.models``, by its name there, on any source of images.

    Attributes
    ----------
    model : str
        A name that ``torchvision.models.list_models`` knows, such as ``resnet18``.
    weights : str
        ``random``: freshly initialised by the cell's seed, with batch-norm statistics of the calibration images, to try
        machinery and speed; ``imagenet``: torchvision's default weights, downloaded and verified by torchvision.
    path : Path or None
        A safetensors file with the model's own state dict, inside the suite's folder, in place of `weights`.
    images : source of images
        What is classified.
    size : int or None
        Images are resized to this many pixels a side; None leaves them as they are, and ``imagenet`` takes the size
        that its weights were evaluated at.
    """

    sources: ClassVar[tuple[str, ...]] = (
        *ImageModelSpec.sources,
        "qbench.tasks.torchvision_ops",
        "qbench.tasks.torchvision_task",
    )

    model: str
    weights: Literal["random", "imagenet"] = "random"
    path: Path | None = None
    images: ImagesField = Mnist5k()
    size: Annotated[int, Field(ge=8, le=1024)] | None = None

    @field_validator("model")
    @classmethod
    def _is_known(cls, value: str) -> str:
        known = classifier_names()
        if value not in known:
            close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
            hint = f": did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{value!r} is no image classifier of torchvision{hint} (allowed: what torchvision.models.list_models("
                "module=torchvision.models) lists)"
            )
        return value

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> TorchvisionClassifier:
        if self.path is not None and "weights" in self.model_fields_set:
            raise ValueError("give either weights or path")
        return self

    def label(self) -> str:
        """Return the model's name with its weights, its images, and every option that is not at its default."""
        weights = self.weights if self.path is None else self.path.name
        rest = self.changed_options(but={"model", "weights", "path", "images"})
        return f"{self.model}[{','.join([weights, self.images.title(), *rest])}]"

    def source(self) -> ImageSource:
        """Return where its images come from."""
        return self.images

    def has_batch_norm(self) -> bool:
        """Return False for the families that have none; for any other, loading it shows."""
        return "_bn" in self.model or not self.model.startswith(_WITHOUT_BATCH_NORM)

    def needs_hub(self) -> bool:
        """Return whether the images come from a repository."""
        return self.images.needs_hub()

    def prepare(self) -> None:
        """Bring images and weights to this machine; see `ModelSpec.prepare`."""
        from qbench.tasks.torchvision_task import fetch_weights

        self.images.prepare()
        fetch_weights(self)

    def load(self, seed: int, device: str) -> ImageTask:
        """Load the model and its images; see `ModelSpec.load`."""
        from qbench.tasks.torchvision_task import load_torchvision

        return load_torchvision(self, seed, device)

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return what the weights are, torchvision's version, and the hashes of the images."""
        return {
            "weights": self._weights_fingerprint(),
            "torchvision": version("torchvision").partition("+")[0],
            **self.images.fingerprint(),
        }

    def _weights_fingerprint(self) -> str:
        if self.path is not None:
            if not self.path.is_file():
                raise AssetError(f"weights {self.path} do not exist")
            return atomic.sha256_file(self.path)
        if self.weights == "random":
            return "random"
        from qbench.tasks.torchvision_task import imagenet_weights

        return str(imagenet_weights(self.model).url).rpartition("/")[2]

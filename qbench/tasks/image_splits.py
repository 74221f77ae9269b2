"""Images with labels, and how a set of them is split for calibration, training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from qbench.errors import AssetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "calibration", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)
_OFFICIAL_CALIBRATION = 1000


@dataclass(frozen=True)
class LabelledImages:
    """Images of one size, with their classes.

    Attributes
    ----------
    images : array of shape (n, channels, height, width), uint8
    labels : array of shape (n,), int64
        From 0 to ``classes - 1``.
    classes : int
        How many there are, whether or not all of them occur.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: NDArray[np.int64]) -> LabelledImages:
        """Return the given rows, in the given order."""
        return LabelledImages(self.images[rows], self.labels[rows], self.classes)

    def sha256(self) -> str:
        """Return the hash of the images, their shape and their labels, in order."""
        import numpy as np

        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def split_images(
    everything: LabelledImages, calibration: float, evaluation: float, place: str
) -> dict[Split, LabelledImages]:
    """Split images class by class, in the order of their hashes.

    The hash of an image decides where it goes, so the split depends neither on the order of a file nor on chance. An
    image that is there several times is taken once: it could be trained on under one number and evaluated under
    another.

    Parameters
    ----------
    everything : LabelledImages
        The whole set.
    calibration, evaluation : float
        Shares of each class; the rest is for training.
    place : str
        Where the images are from, for messages.

    Returns
    -------
    dict
        By split; classes follow one another image by image, so that any first few images have about as many of each.

    Raises
    ------
    AssetError
        A class has so few different images that a split would get none.
    """
    _require_classes(everything, place)
    chosen: dict[Split, list[_Ranked]] = {split: [] for split in SPLITS}
    for label, distinct in enumerate(_by_class(everything)):
        count = len(distinct)
        held = round(count * evaluation)
        ends = [held, held + round(count * calibration), count]
        order: tuple[Split, ...] = ("evaluation", "calibration", "train")
        for split, start, end in zip(order, [0, *ends], ends, strict=False):
            if start >= end:
                raise _too_few(place, count, label, SPLITS)
            chosen[split] += _ranked(distinct[start:end])
    return {split: _in_order(everything, rows) for split, rows in chosen.items()}


def split_official(train: LabelledImages, test: LabelledImages, place: str) -> dict[Split, LabelledImages]:
    """Split a set that comes with a test set: all of that is for evaluation, the rest is split by hash.

    An image of the test set that is also among the training images is taken out of these, under whatever label, and
    an image that is among them several times is taken once.

    Parameters
    ----------
    train, test : LabelledImages
        The two parts as they were published.
    place : str
        Where the images are from, for messages.

    Returns
    -------
    dict
        By split; calibration has 1000 images, spread evenly over the classes, but never more than a fifth of a class
        and at least one. The order is that of `split_images`.

    Raises
    ------
    AssetError
        The parts differ in classes, or in the size of their images; or a class has too few different images.
    """
    for what, one, other in (
        ("classes", train.classes, test.classes),
        ("channels, height and width", train.images.shape[1:], test.images.shape[1:]),
    ):
        if one != other:
            raise AssetError(f"images {place} have {what} {one} for training and {other} for evaluation: not the same")
    _require_classes(train, place)
    if not len(test):
        raise AssetError(f"images {place} have none for evaluation")
    seen = set(_hashes(test))
    chosen: dict[Split, list[_Ranked]] = {split: [] for split in SPLITS}
    for label, distinct in enumerate(_by_class(train)):
        left = [image for image in distinct if image[0] not in seen]
        if len(left) < 2:
            raise _too_few(place, len(left), label, ("train", "calibration"))
        quota = max(1, min(_OFFICIAL_CALIBRATION // train.classes, len(left) // 5))
        chosen["calibration"] += _ranked(left[:quota])
        chosen["train"] += _ranked(left[quota:])
    found = {split: _in_order(train, rows) for split, rows in chosen.items()}
    # The test set stays whole: results on it are compared with those of others.
    ordered = [_ranked(images) for images in _by_class(test, distinct=False)]
    return {**found, "evaluation": _in_order(test, [row for rows in ordered for row in rows])}


def check_pinned(found: Mapping[Split, LabelledImages], pinned: Mapping[Split, str], place: str) -> None:
    """Compare splits with their pinned hashes.

    Raises
    ------
    AssetError
        One is another.
    """
    for split, wanted in pinned.items():
        sha256 = found[split].sha256()
        if sha256 != wanted:
            raise AssetError(f"images {place}: split {split!r} came out with sha256 {sha256}, pinned is {wanted}")


# (rank in its class, hash, row): sorted, the classes follow one another.
_Ranked = tuple[int, bytes, int]


def _hashes(images: LabelledImages) -> list[bytes]:
    import numpy as np

    return [hashlib.sha256(image).digest() for image in np.ascontiguousarray(images.images)]


def _by_class(images: LabelledImages, *, distinct: bool = True) -> list[list[tuple[bytes, int]]]:
    """Return (hash, row) of the images of each class by hash; of equal ones the first of the lowest class."""
    import numpy as np

    found: list[list[tuple[bytes, int]]] = [[] for _ in range(images.classes)]
    hashes, labels = _hashes(images), images.labels.tolist()
    seen: set[bytes] = set()
    for row in np.argsort(images.labels, kind="stable").tolist():
        if not (distinct and hashes[row] in seen):
            seen.add(hashes[row])
            found[labels[row]].append((hashes[row], row))
    return [sorted(rows) for rows in found]


def _ranked(images: list[tuple[bytes, int]]) -> list[_Ranked]:
    return [(rank, digest, row) for rank, (digest, row) in enumerate(images)]


def _in_order(images: LabelledImages, rows: list[_Ranked]) -> LabelledImages:
    import numpy as np

    return images.select(np.array([row for _, _, row in sorted(rows)], dtype=np.int64))


def _require_classes(images: LabelledImages, place: str) -> None:
    if images.classes < 2:
        raise AssetError(
            f"images {place} have {images.classes} class: there is nothing to tell apart (allowed: 2 or more)"
        )


def _too_few(place: str, count: int, label: int, splits: tuple[str, ...]) -> AssetError:
    return AssetError(
        f"images {place} have {count} different ones of class {label}: too few to give each of {', '.join(splits)} one"
    )

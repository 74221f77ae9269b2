"""Images with labels, and how a set of them is split for calibration, training and evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qbench.errors import AssetError

Split = Literal["train", "calibration", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)


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
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
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
    hashes = [hashlib.sha256(image.tobytes()).digest() for image in np.ascontiguousarray(everything.images)]
    chosen: dict[Split, list[tuple[int, bytes, int]]] = {split: [] for split in SPLITS}
    for label in range(everything.classes):
        rows = [(hashes[row], int(row)) for row in np.flatnonzero(everything.labels == label)]
        distinct = sorted(dict(reversed(rows)).items())
        count = len(distinct)
        ends = [round(count * evaluation), round(count * evaluation) + round(count * calibration), count]
        parts = zip(("evaluation", "calibration", "train"), [0, *ends], ends, strict=False)
        for split, start, end in parts:
            if start >= end:
                raise AssetError(
                    f"images {place} have {count} different ones of class {label}: too few to give each of "
                    f"{', '.join(SPLITS)} one"
                )
            chosen[split] += [(rank, digest, row) for rank, (digest, row) in enumerate(distinct[start:end])]
    return {
        split: everything.select(np.array([row for _, _, row in sorted(rows)], dtype=np.int64))
        for split, rows in chosen.items()
    }

"""The idx files in which MNIST and the sets made after it are published."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import AssetError
from qbench.tasks.image_splits import LabelledImages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTE = 8


def gunzip(content: bytes, place: str) -> bytes:
    """Return what a gzip file holds.

    Raises
    ------
    AssetError
        It is damaged or cut off.
    """
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise AssetError(f"{place} is no whole gzip file: {error}") from error


def parse_idx(content: bytes, dimensions: int, place: str) -> NDArray[np.uint8]:
    """Return the array of an idx file of unsigned bytes.

    The file starts with two zero bytes, the type and the number of dimensions; then each dimension as a big-endian
    32-bit number, then the values (http://yann.lecun.com/exdb/mnist).

    Parameters
    ----------
    content : bytes
        The whole file, decompressed.
    dimensions : int
        How many it must have: 3 for images, 1 for labels.
    place : str
        The file, for messages.

    Raises
    ------
    AssetError
        It is no such file, or has more or fewer values than it says.
    """
    import numpy as np

    head = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or len(content) < head:
        raise AssetError(f"{place} is no idx file of unsigned bytes with {dimensions} dimensions")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    if len(content) - head != math.prod(shape):
        told = " x ".join(map(str, shape))
        raise AssetError(f"{place} has {len(content) - head} bytes after its head, which says {told}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def labelled(images: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int, place: str) -> LabelledImages:
    """Return grey images with their labels.

    Parameters
    ----------
    images : array of shape (n, height, width), uint8
    labels : array of shape (n,), uint8
    classes : int
        How many there are.
    place : str
        Where they are from, for messages.

    Raises
    ------
    AssetError
        There are not as many labels as images.
    """
    import numpy as np

    if len(images) != len(labels):
        raise AssetError(f"{place} has {len(images)} images and {len(labels)} labels")
    return LabelledImages(images[:, None], labels.astype(np.int64), classes)


def has_idx(folder: Path) -> bool:
    """Return whether a folder holds idx files of MNIST's names."""
    return any(_find(folder, name) is not None for name in TRAIN + TEST)


def idx_files(folder: Path) -> list[Path]:
    """Return the four files of a folder: images and labels for training, then those for testing.

    Raises
    ------
    AssetError
        One is missing.
    """
    found = {name: _find(folder, name) for name in TRAIN + TEST}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise AssetError(f"image folder {folder} has idx files but no {', '.join(missing)} (nor that with .gz)")
    return [path for path in found.values() if path is not None]


def read_idx_folder(folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and the test images of a folder with MNIST's four files, gzipped or not.

    Raises
    ------
    AssetError
        A file is missing or damaged, or images and labels are not as many.
    """
    train_images, train_labels, test_images, test_labels = (
        parse_idx(_content(path), dimensions, str(path))
        for path, dimensions in zip(idx_files(folder), (3, 1, 3, 1), strict=True)
    )
    classes = 1 + max(int(labels.max(initial=0)) for labels in (train_labels, test_labels))
    return (
        labelled(train_images, train_labels, classes, f"{folder} (train)"),
        labelled(test_images, test_labels, classes, f"{folder} (t10k)"),
    )


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gunzip(content, str(path)) if path.suffix == ".gz" else content

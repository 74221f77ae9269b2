"""The records of CIFAR-10's binary version (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qbench.errors import AssetError
from qbench.tasks.image_splits import LabelledImages

if TYPE_CHECKING:
    pass

_CLASSES, _CHANNELS, _SIDE = 10, 3, 32
_RECORD = 1 + _CHANNELS * _SIDE * _SIDE


def parse_records(content: bytes, place: str) -> LabelledImages:
    """Return the images of a batch file: each a byte with its class, then red, green and blue row by row.

    Raises
    ------
    AssetError
        The file ends within a record, or has a class that there is not.
    """
    import numpy as np

    if not content or len(content) % _RECORD:
        raise AssetError(f"{place} has {len(content)} bytes, no whole number of records of {_RECORD}")
    table = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    labels = table[:, 0].astype(np.int64)
    if labels.max() >= _CLASSES:
        raise AssetError(f"{place} has an image of class {labels.max()}, its classes are 0 to {_CLASSES - 1}")
    return LabelledImages(table[:, 1:].reshape(-1, _CHANNELS, _SIDE, _SIDE), labels, _CLASSES)


def train_and_test(members: Iterable[tuple[str, bytes]]) -> tuple[LabelledImages, LabelledImages]:
    """Return the images of the training batches and those of the test batch.

    Parameters
    ----------
    members : iterable of (str, bytes)
        Names and contents of the archive's batches.
    """
    parts: dict[bool, list[LabelledImages]] = {True: [], False: []}
    for name, content in members:
        parts[name.endswith("test_batch.bin")].append(parse_records(content, f"cifar10: {name}"))
    return _joined(parts[False]), _joined(parts[True])


def _joined(parts: list[LabelledImages]) -> LabelledImages:
    import numpy as np

    images, labels = [part.images for part in parts], [part.labels for part in parts]
    return LabelledImages(np.concatenate(images), np.concatenate(labels), _CLASSES)

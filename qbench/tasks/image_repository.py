"""An image data set of a Hugging Face repository."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qbench.errors import AssetError
from qbench.tasks.evaluation import announce
from qbench.tasks.image_folder import ImageSize
from qbench.tasks.image_pixels import of_as_many_channels, stack_pictures
from qbench.tasks.image_source import ImageSource
from qbench.tasks.image_splits import LabelledImages, Split, split_images, split_official
from qbench.tasks.text import Commit

if TYPE_CHECKING:
    from PIL.Image import Image

_CALIBRATION_SHARE, _EVALUATION_SHARE = 0.1, 0.2


class ImageRepository(ImageSource):
    """An image data set of a Hugging Face repository, read with `datasets`.

    Attributes
    ----------
    repo, revision : str
        The repository, and the full commit hash in it.
    config : str or None
        The data set's configuration.
    train : str
        The rows that are trained and calibrated on.
    evaluation : str or None
        The rows that are evaluated on; None where there are no others: then those of `train` are split by hash.
    image, label : str
        Which columns hold the picture and its class.
    size : int or None
        Pictures are resized to this many pixels a side, and cut to a square; None takes them as they are, of one size.
    """

    repo: str
    revision: Commit
    config: str | None = None
    train: str = "train"
    evaluation: str | None = "test"
    image: str = "image"
    label: str = "label"
    size: ImageSize | None = None

    def needs_hub(self) -> bool:
        """Return that the images come from a repository."""
        return True

    def title(self) -> str:
        """Return the repository's own name, without its owner, and the size where there is one."""
        name = self.repo.rpartition("/")[2]
        return name if self.size is None else f"{name}@{self.size}"

    def fingerprint(self) -> dict[str, str]:
        """Return the commit and what is read of it."""
        parts = (self.config, self.train, self.evaluation, self.image, self.label, self.size)
        return {
            "images": f"{self.repo}@{self.revision}/{'/'.join('' if part is None else str(part) for part in parts)}"
        }

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split.

        Raises
        ------
        AssetError
            The data set cannot be had: no network and not in the cache, or no such revision, split or column; or a
            row has no class.
        """
        announce(split, f"images {self.repo}")
        return _splits(self)[split]


@lru_cache(maxsize=2)
def _splits(source: ImageRepository) -> dict[Split, LabelledImages]:
    if source.evaluation is None:
        rows = _rows(source, source.train)
        everything = _labelled(source, source.train, rows, _class_names(source, rows))
        return split_images(everything, _CALIBRATION_SHARE, _EVALUATION_SHARE, source.repo)
    parts = {name: _rows(source, name) for name in (source.train, source.evaluation)}
    names = _class_names(source, parts[source.train])
    train, test = (_labelled(source, name, rows, names) for name, rows in parts.items())
    return split_official(
        LabelledImages(of_as_many_channels(train.images, test.images), train.labels, train.classes),
        LabelledImages(of_as_many_channels(test.images, train.images), test.labels, test.classes),
        source.repo,
    )


def _rows(source: ImageRepository, split: str) -> Any:
    from datasets import Image, load_dataset

    place = f"images {source.repo}@{source.revision[:12]}"
    try:
        rows = load_dataset(source.repo, source.config, revision=source.revision, split=split)
    except Exception as error:  # `datasets` raises many kinds; each means that the images are not to be had
        reason = str(error).split("\n")[0]
        raise AssetError(f"{place} cannot be loaded: {reason}") from error
    for option in ("image", "label"):
        column = getattr(source, option)
        if column not in rows.column_names:
            raise AssetError(
                f"{place}: {split} has no column {column!r} ({option}; has: {', '.join(rows.column_names)})"
            )
    if not isinstance(rows.features[source.image], Image):
        kind = type(rows.features[source.image]).__name__
        raise AssetError(f"{place}: the column {source.image!r} of {split} holds {kind} (allowed: pictures)")
    return rows


def _class_names(source: ImageRepository, rows: Any) -> list[Any]:
    """Return the values of the label column that are classes, in the order of their numbers."""
    from datasets import ClassLabel

    feature = rows.features[source.label]
    if isinstance(feature, ClassLabel):
        return list(range(feature.num_classes))
    try:
        return sorted(set(rows[source.label]))
    except TypeError as error:
        raise AssetError(f"images {source.repo}: the column {source.label!r} does not hold one class a row") from error


def _labelled(source: ImageRepository, split: str, rows: Any, names: list[Any]) -> LabelledImages:
    import numpy as np

    numbers = {name: number for number, name in enumerate(names)}
    given = list(rows[source.label])
    foreign = next((row for row, name in enumerate(given) if name not in numbers), None)
    if foreign is not None:
        raise AssetError(
            f"images {source.repo}: {split}:{foreign} has {given[foreign]!r} for {source.label!r} "
            f"(allowed: the classes of {source.train})"
        )
    pixels = stack_pictures(_pictures(source, split, rows), source.size, source.repo)
    return LabelledImages(pixels, np.array([numbers[name] for name in given], dtype=np.int64), len(names))


def _pictures(source: ImageRepository, split: str, rows: Any) -> Iterator[tuple[str, Image]]:
    from PIL.Image import DecompressionBombError

    for number in range(len(rows)):
        try:
            picture = rows[number][source.image]
        except (OSError, SyntaxError, ValueError, DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise AssetError(f"images {source.repo}: {split}:{number} cannot be read as a picture: {reason}") from error
        if picture is None:
            raise AssetError(f"images {source.repo}: {split}:{number} has no picture")
        yield f"{source.repo} {split}:{number}", picture

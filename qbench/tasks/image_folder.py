"""A local folder of images: a subfolder a class, or MNIST's four idx files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from qbench.errors import AssetError
from qbench.tasks.evaluation import announce
from qbench.tasks.image_idx import has_idx, idx_files, read_idx_folder
from qbench.tasks.image_pixels import of_as_many_channels, stack_pictures
from qbench.tasks.image_source import ImageSource
from qbench.tasks.image_splits import LabelledImages, Split, split_images, split_official

if TYPE_CHECKING:
    from PIL.Image import Image

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_TRAIN, _EVALUATION = "train", ("test", "val", "evaluation")
_CALIBRATION_SHARE, _EVALUATION_SHARE = 0.1, 0.2

ImageSize = Annotated[int, Field(ge=4, le=1024)]


class ImageFolder(ImageSource):
    """A local folder of images.

    It holds a subfolder a class, and these are split by hash; or ``train`` and one of ``test``, ``val`` and
    ``evaluation`` with a subfolder a class each, and then the second is evaluated on; or idx files of MNIST's names,
    gzipped or not. Classes are numbered in the order of their names.

    Attributes
    ----------
    folder : Path
        Inside the suite's folder.
    size : int or None
        Pictures are resized to this many pixels a side, and cut to a square; None takes them as they are, of one size.
    """

    folder: Path
    size: ImageSize | None = None

    def title(self) -> str:
        """Return the folder's name, and the size where there is one."""
        return self.folder.name if self.size is None else f"{self.folder.name}@{self.size}"

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split; see `ImageSource.load`."""
        announce(split, f"image folder {self.folder.name}")
        if not self.folder.is_dir():
            raise AssetError(f"image folder {self.folder} does not exist")
        if has_idx(self.folder):
            if self.size is not None:
                raise AssetError(f"image folder {self.folder} has idx files, which are not resized: leave size out")
            return _split_idx(self.folder, _stamp(idx_files(self.folder)))[split]
        files = [file for group in _groups(self.folder).values() for files in group.values() for file in files]
        return _split_pictures(self.folder, self.size, _stamp(files))[split]


# By name, size and time of each file: a folder can change while a process lives.
_Stamp = tuple[tuple[str, int, int], ...]


def _stamp(files: list[Path]) -> _Stamp:
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=4)
def _split_idx(folder: Path, _: _Stamp) -> dict[Split, LabelledImages]:
    return split_official(*read_idx_folder(folder), str(folder))


@lru_cache(maxsize=4)
def _split_pictures(folder: Path, size: int | None, _: _Stamp) -> dict[Split, LabelledImages]:
    groups = {name: _read(classes, size, str(folder)) for name, classes in _groups(folder).items()}
    if set(groups) == {""}:
        return split_images(groups[""], _CALIBRATION_SHARE, _EVALUATION_SHARE, str(folder))
    train, test = groups.values()
    return split_official(
        LabelledImages(of_as_many_channels(train.images, test.images), train.labels, train.classes),
        LabelledImages(of_as_many_channels(test.images, train.images), test.labels, test.classes),
        str(folder),
    )


def _groups(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Return the files by class: of all, under the name ``""``, or of the two parts, the one for training first."""
    inside = {path.name: path for path in _visible(folder)}
    if not (_TRAIN in inside and any(path.is_dir() for path in _visible(inside[_TRAIN]))):
        return {"": _classes(folder, folder)}
    found = [name for name in _EVALUATION if name in inside]
    if len(found) != 1:
        raise AssetError(
            f"image folder {folder} has {' and '.join(found) or 'nothing'} beside {_TRAIN} "
            f"(allowed: one of {', '.join(_EVALUATION)})"
        )
    foreign = sorted(inside.keys() - {_TRAIN, *found})
    if foreign:
        raise AssetError(f"image folder {folder} has {foreign[0]} beside {_TRAIN} and {found[0]} (allowed: these two)")
    groups = {name: _classes(inside[name], folder) for name in (_TRAIN, found[0])}
    train, test = (set(classes) for classes in groups.values())
    if train != test:
        raise AssetError(f"image folder {folder}: only one of {_TRAIN} and {found[0]} has {sorted(train ^ test)[0]!r}")
    return groups


def _classes(folder: Path, root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for place in _visible(folder):
        if not place.is_dir():
            raise AssetError(f"{place} is not in a folder of a class (allowed: a subfolder a class, or idx files)")
        found[place.name] = _visible(place)
        for file in found[place.name]:
            if file.suffix.lower() not in _ENDINGS or not file.is_file():
                raise AssetError(f"{file} is no image file (allowed: {', '.join(_ENDINGS)})")
            if not file.resolve().is_relative_to(root.resolve()):
                raise AssetError(f"{file} is a link that leaves {root}")
    if not found:
        raise AssetError(f"image folder {folder} has no subfolders (allowed: a subfolder a class, or idx files)")
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _read(classes: dict[str, list[Path]], size: int | None, place: str) -> LabelledImages:
    import numpy as np

    files = [file for of_class in classes.values() for file in of_class]
    counts = [len(of_class) for of_class in classes.values()]
    pixels = stack_pictures(_opened(files), size, place)
    return LabelledImages(pixels, np.repeat(np.arange(len(counts), dtype=np.int64), counts), len(counts))


def _opened(files: list[Path]) -> Iterator[tuple[str, Image]]:
    from PIL import Image

    for file in files:
        try:
            with Image.open(file) as picture:
                picture.load()
                yield str(file), picture
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise AssetError(f"{file} cannot be read as a picture: {reason}") from error

"""From decoded pictures of any kind to one array of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qbench.errors import AssetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_GREY = ("1", "L", "LA")
_COLOUR = ("P", "RGB", "RGBA", "CMYK", "YCbCr")


def stack_pictures(pictures: Iterable[tuple[str, Image]], size: int | None, place: str) -> NDArray[np.uint8]:
    """Return pictures as an array; all grey when each of them is, else all in colour.

    Parameters
    ----------
    pictures : iterable of (str, PIL.Image.Image)
        Each with its name, for messages. What is transparent is taken as opaque.
    size : int or None
        The shorter side becomes so many pixels by antialiased bilinear interpolation, and a square is cut from the
        middle; None takes the pictures as they are, and then they must be of one size.
    place : str
        Where they are from, for messages.

    Returns
    -------
    array of shape (n, channels, height, width), uint8

    Raises
    ------
    AssetError
        There is none; or one is of another size, or not of 8 bits a channel.
    """
    import numpy as np

    found: list[Image] = []
    first = ""
    for name, picture in pictures:
        if picture.mode not in _GREY + _COLOUR:
            raise AssetError(f"{name} is a picture of mode {picture.mode} (allowed: 8-bit grey or colour)")
        as_bytes = picture.convert("L" if picture.mode in _GREY else "RGB")
        if size is not None:
            as_bytes = _squared(as_bytes, size)
        elif found and as_bytes.size != found[0].size:
            one, other = ("x".join(map(str, image.size)) for image in (found[0], as_bytes))
            raise AssetError(f"images {place} are of several sizes: {first} is {one}, {name} is {other}: give size: N")
        first = first or name
        found.append(as_bytes)
    if not found:
        raise AssetError(f"images {place}: there is none")
    colour = any(image.mode == "RGB" for image in found)
    mode = "RGB" if colour else "L"
    pixels = np.stack([np.asarray(image.convert(mode), dtype=np.uint8) for image in found])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if colour else pixels[:, None]


def of_as_many_channels(images: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of shape (n, channels, height, width); grey ones repeated where the others have colours."""
    import numpy as np

    return np.repeat(images, other.shape[1], axis=1) if images.shape[1] == 1 else images


def _squared(image: Image, size: int) -> Image:
    from PIL.Image import Resampling

    shorter = min(image.size)
    if shorter != size:
        sides = [max(size, round(side * size / shorter)) for side in image.size]
        image = image.resize((sides[0], sides[1]), Resampling.BILINEAR)
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))

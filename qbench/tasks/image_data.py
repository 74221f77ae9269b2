"""From the bytes of images to batches: normalisation, and an endless training stream with seeded augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from qbench.seeds import derive_seed
from qbench.tasks.image_splits import LabelledImages


class ImageBatch(NamedTuple):
    """Images with their classes.

    Attributes
    ----------
    images : Tensor of shape (n, channels, height, width), float32
    labels : Tensor of shape (n,), int64
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Normalisation:
    """Channel means and deviations, of pixels from 0 to 1.

    Attributes
    ----------
    mean, deviation : Tensor of shape (channels, 1, 1)
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, images: LabelledImages) -> Normalisation:
        """Return the moments of a set of images, rounded to four digits so that no summation order shows."""
        pixels = images.images
        moments = [(float(pixels[:, c].mean()) / 255, float(pixels[:, c].std()) / 255) for c in range(pixels.shape[1])]
        mean, deviation = (torch.tensor([round(x, 4) for x in part]) for part in zip(*moments, strict=True))
        return cls(mean.view(-1, 1, 1), deviation.clamp(min=1e-3).view(-1, 1, 1))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels of shape (n, channels, height, width) as float32 of mean 0 and deviation 1."""
        return (pixels.float() / 255 - self.mean) / self.deviation


@dataclass(frozen=True)
class Resizing:
    """Another size and number of channels, then normalisation; batch by batch, since large images fill a memory.

    Attributes
    ----------
    size : int or None
        Pixels a side, by antialiased bilinear interpolation; None leaves it.
    channels : int
        Grey images are repeated in so many.
    normalise : Normalisation
        Of the channels as they are in the file, or as the model wants them.
    """

    size: int | None
    channels: int
    normalise: Normalisation

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels of shape (n, c, height, width) as float32 of shape (n, channels, size, size)."""
        images = pixels if len(self.normalise.mean) == pixels.shape[1] else pixels.expand(-1, self.channels, -1, -1)
        found = self.normalise(images)
        if self.size is not None and found.shape[-2:] != (self.size, self.size):
            found = functional.interpolate(found, (self.size, self.size), mode="bilinear", antialias=True)
        return found.expand(-1, self.channels, -1, -1).contiguous()


def shifted(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `reach` pixels along each axis; what comes in is of value 0.

    Parameters
    ----------
    images : Tensor of shape (n, channels, height, width)
        Of any type.
    reach : int
        Draws are uniform on ``-reach .. reach``.
    generator : torch.Generator
        Of the draws.
    """
    if not reach:
        return images
    count, _, height, width = images.shape
    padded = functional.pad(images, (reach,) * 4)
    down, right = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)
    rows = (down[:, None] + torch.arange(height))[:, None, :, None]
    columns = (right[:, None] + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[:, None, None], rows, columns]


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images, drawn one by one, left to right."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def stream(
    data: LabelledImages,
    normalise: Callable[[Tensor], Tensor],
    batch_size: int,
    seed: int,
    *,
    shift: int = 0,
    mirror: bool = False,
    start: int = 0,
) -> Iterator[ImageBatch]:
    """Yield training batches for ever: each epoch is a new permutation, each batch has draws of its own.

    Parameters
    ----------
    data : LabelledImages
        The training split.
    normalise : callable
        From uint8 pixels to what a model takes; applied last, so that what shifts in is black.
    batch_size : int
        Images a batch; the last, shorter batch of an epoch is left out.
    seed : int
        Everything drawn depends on it and on the batch's number alone.
    shift : int
        Largest shift in pixels.
    mirror : bool
        Whether half of the images are mirrored.
    start : int
        Number of the first batch; a resumed training goes on where it was.
    """
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    batch_size = min(batch_size, len(data))
    each = len(data) // batch_size
    number = start
    while True:
        epoch, first = divmod(number, each)
        order = torch.randperm(len(data), generator=_generator(seed, "epoch", epoch))
        for index in range(first, each):
            rows = order[index * batch_size : (index + 1) * batch_size]
            generator = _generator(seed, "batch", number)
            chosen = shifted(images[rows], shift, generator)
            if mirror:
                chosen = mirrored(chosen, generator)
            yield ImageBatch(normalise(chosen), labels[rows])
            number += 1


def _generator(seed: int, purpose: str, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(purpose, seed, number))

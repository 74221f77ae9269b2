"""From bytes to batches: normalisation, augmentation, the endless stream."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qbench.tasks.image_data import ImageBatch, Normalisation, Resizing, mirrored, shifted, stream
from qbench.tasks.image_splits import LabelledImages


def drawn(count: int = 20, channels: int = 1, side: int = 6, classes: int = 4, seed: int = 0) -> LabelledImages:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    return LabelledImages(pixels, np.arange(count, dtype=np.int64) % classes, classes)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalised_images_have_mean_0_and_deviation_1_in_each_channel() -> None:
    data = drawn(200, channels=3)
    data.images[:, 1] //= 4
    found = Normalisation.of(data)(torch.from_numpy(data.images))
    assert found.dtype == torch.float32
    assert found.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (found.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3


def test_images_of_one_grey_are_finite() -> None:
    data = LabelledImages(np.full((4, 1, 3, 3), 7, np.uint8), np.zeros(4, np.int64), 1)
    assert torch.isfinite(Normalisation.of(data)(torch.from_numpy(data.images))).all()


@given(st.integers(0, 3), st.integers(0, 1000))
def test_a_shifted_image_is_the_image_moved_with_black_behind_it(reach: int, seed: int) -> None:
    images = torch.randint(1, 256, (5, 2, 6, 7), generator=seeded(seed), dtype=torch.uint8)
    found = shifted(images, reach, seeded(seed))
    assert found.shape == images.shape and found.dtype == images.dtype
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    for image, wide in zip(found, padded, strict=True):
        places = [
            (top, left)
            for top in range(2 * reach + 1)
            for left in range(2 * reach + 1)
            if torch.equal(image, wide[:, top : top + 6, left : left + 7])
        ]
        assert places


def test_all_shifts_occur() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[..., 4, 4] = 1
    found = shifted(image.expand(2000, -1, -1, -1), 2, seeded())
    assert {tuple(place) for place in found.nonzero()[:, 2:].tolist()} == {
        (r, c) for r in range(2, 7) for c in range(2, 7)
    }


def test_about_half_of_the_images_are_mirrored_whole() -> None:
    images = torch.randint(0, 256, (400, 1, 3, 5), generator=seeded(), dtype=torch.uint8)
    found = mirrored(images, seeded())
    flipped = (found == images.flip(3)).all(dim=(1, 2, 3))
    assert ((found == images).all(dim=(1, 2, 3)) | flipped).all()
    assert 140 < int(flipped.sum()) < 260


def test_an_epoch_has_every_image_once_and_the_next_another_order() -> None:
    data = drawn(20)
    keep = Normalisation(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    batches = list(islice(stream(data, keep, 5, seed=3), 8))
    for part in (batches[:4], batches[4:]):
        seen = torch.cat([batch.images for batch in part]).mul(255).round().to(torch.uint8)
        assert {image.numpy().tobytes() for image in seen} == {image.tobytes() for image in data.images}
    assert not torch.equal(batches[0].images, batches[4].images)


def test_labels_go_with_their_images() -> None:
    pixels = np.repeat(np.arange(12, dtype=np.uint8), 9).reshape(12, 1, 3, 3)
    data = LabelledImages(pixels, np.arange(12, dtype=np.int64), 12)
    keep = Normalisation(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    for batch in islice(stream(data, keep, 4, seed=1), 6):
        assert (batch.images[:, 0, 1, 1] * 255).round().long().tolist() == batch.labels.tolist()


@pytest.mark.parametrize("start", [1, 3, 4, 7])
def test_a_stream_that_starts_later_goes_on_as_the_whole_one(start: int) -> None:
    data = drawn(20)
    normalise = Normalisation.of(data)
    whole = list(islice(stream(data, normalise, 6, 5, shift=2, mirror=True), start + 3))[start:]
    late = islice(stream(data, normalise, 6, 5, shift=2, mirror=True, start=start), 3)
    for one, other in zip(whole, late, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_a_stream_leaves_the_global_generator_alone_and_depends_on_its_seed() -> None:
    data = drawn(20)
    normalise, state = Normalisation.of(data), torch.get_rng_state()
    first, again, other = (next(stream(data, normalise, 6, seed, shift=2)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    batch = next(stream(drawn(7), Normalisation.of(drawn(7)), 100, 0))
    assert isinstance(batch, ImageBatch) and len(batch.images) == 7


def test_resizing_repeats_grey_channels_and_keeps_flat_images_flat() -> None:
    pixels = torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)
    grey = Normalisation(torch.tensor([0.1]).view(1, 1, 1), torch.tensor([0.5]).view(1, 1, 1))
    found = Resizing(20, 3, grey)(pixels)
    assert found.shape == (2, 3, 20, 20)
    assert torch.allclose(found, torch.full_like(found, 0.2))
    coloured = Normalisation(torch.tensor([0.1, 0.2, 0.0]).view(3, 1, 1), torch.ones(3, 1, 1))
    assert torch.allclose(Resizing(None, 3, coloured)(pixels)[0, :, 0, 0], torch.tensor([0.1, 0.0, 0.2]), atol=1e-6)

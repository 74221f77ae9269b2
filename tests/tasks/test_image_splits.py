"""Splits: no image in two of them, the classes even, whatever order the images came in."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import AssetError
from qbench.tasks.image_splits import (
    SPLITS,
    LabelledImages,
    check_pinned,
    split_images,
    split_official,
)


def drawn(per_class: int, classes: int = 3, seed: int = 0) -> LabelledImages:
    labels = np.repeat(np.arange(classes, dtype=np.int64), per_class)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8)
    return LabelledImages(pixels, labels, classes)


def joined(*parts: LabelledImages) -> LabelledImages:
    images, labels = [part.images for part in parts], [part.labels for part in parts]
    return LabelledImages(np.concatenate(images), np.concatenate(labels), parts[0].classes)


def pictures(images: LabelledImages) -> list[bytes]:
    return [image.tobytes() for image in images.images]


def counts(images: LabelledImages) -> list[int]:
    return np.bincount(images.labels, minlength=images.classes).tolist()


def assert_disjoint(found: dict[str, LabelledImages]) -> None:
    for one, other in combinations(SPLITS, 2):
        assert not set(pictures(found[one])) & set(pictures(found[other]))


@given(seed=st.integers(0, 2**32 - 1), per_class=st.integers(20, 40))
def test_each_image_is_in_one_split_with_its_label(seed: int, per_class: int) -> None:
    everything = drawn(per_class, seed=seed)
    found = split_images(everything, 0.1, 0.2, "here")
    assert_disjoint(found)
    label_of = dict(zip(pictures(everything), everything.labels.tolist(), strict=True))
    placed = {
        picture: label for part in found.values() for picture, label in zip(pictures(part), part.labels, strict=True)
    }
    assert placed == label_of
    assert counts(found["evaluation"]) == [round(per_class * 0.2)] * 3
    assert counts(found["calibration"]) == [round(per_class * 0.1)] * 3


@given(order=st.permutations(range(60)))
def test_the_order_of_the_file_does_not_show(order: list[int]) -> None:
    everything = drawn(20)
    shuffled = everything.select(np.array(order))
    one, other = (split_images(images, 0.1, 0.2, "here") for images in (everything, shuffled))
    assert {name: part.sha256() for name, part in one.items()} == {name: part.sha256() for name, part in other.items()}
    one, other = (split_official(images, drawn(9, seed=5), "here") for images in (everything, shuffled))
    assert {name: part.sha256() for name, part in one.items()} == {name: part.sha256() for name, part in other.items()}


def test_classes_follow_one_another() -> None:
    found = split_images(drawn(40), 0.1, 0.2, "here")
    for part in found.values():
        for first in range(0, len(part), 3):
            assert sorted(part.labels[first : first + 3].tolist()) == [0, 1, 2]


def test_a_copy_is_taken_once_whatever_its_label() -> None:
    everything = drawn(20)
    relabelled = LabelledImages(everything.images[:20], np.full(20, 2, np.int64), 3)
    copied = joined(relabelled, everything, everything)
    found = split_images(copied, 0.1, 0.2, "here")
    assert_disjoint(found)
    assert sum(map(len, found.values())) == 60
    one = split_images(everything, 0.1, 0.2, "here")
    assert all(found[split].sha256() == one[split].sha256() for split in SPLITS)


def test_a_class_with_too_few_images() -> None:
    sparse = joined(drawn(20), LabelledImages(np.zeros((0, 1, 4, 4), np.uint8), np.zeros(0, np.int64), 3))
    few = LabelledImages(sparse.images[:42], sparse.labels[:42], 3)
    with pytest.raises(
        AssetError, match=r"^images here have 2 different ones of class 2: too few to give each of train"
    ):
        split_images(few, 0.1, 0.2, "here")
    with pytest.raises(AssetError, match=r"^images here have 1 different ones of class 2: too few"):
        split_official(few.select(np.arange(41)), drawn(3, seed=1), "here")


def test_an_official_test_set_is_evaluated_whole() -> None:
    train, test = drawn(50), drawn(7, seed=1)
    test = joined(test, test.select(np.arange(2)))
    found = split_official(train, test, "here")
    assert sorted(pictures(found["evaluation"])) == sorted(pictures(test))
    assert counts(found["calibration"]) == [10] * 3
    assert counts(found["train"]) == [40] * 3
    assert_disjoint(found)


def test_calibration_of_a_large_official_set_has_1000_images() -> None:
    found = split_official(drawn(1300, classes=4), drawn(3, classes=4, seed=1), "here")
    assert counts(found["calibration"]) == [250] * 4


def test_a_test_image_is_never_trained_or_calibrated_on() -> None:
    train, test = drawn(30), drawn(10, seed=1)
    mislabelled = LabelledImages(test.images, (test.labels + 1) % 3, 3)
    found = split_official(joined(test, train, mislabelled), test, "here")
    assert_disjoint(found)
    assert len(found["train"]) + len(found["calibration"]) == len(train)
    assert len(found["evaluation"]) == len(test)


def test_official_parts_that_do_not_fit_together() -> None:
    with pytest.raises(
        AssetError, match=r"^images here have classes 3 for training and 4 for evaluation: not the same"
    ):
        split_official(drawn(20), drawn(20, classes=4), "here")
    wide = LabelledImages(np.zeros((3, 1, 4, 5), np.uint8), np.arange(3), 3)
    with pytest.raises(AssetError, match=r"\(1, 4, 4\) for training and \(1, 4, 5\) for evaluation"):
        split_official(drawn(20), wide, "here")
    with pytest.raises(AssetError, match="have none for evaluation"):
        split_official(drawn(20), drawn(0), "here")


def test_the_hash_is_of_images_labels_and_shape() -> None:
    images = drawn(4)
    relabelled = LabelledImages(images.images, (images.labels + 1) % 3, 3)
    reshaped = LabelledImages(images.images.reshape(-1, 1, 2, 8), images.labels, 3)
    reordered = images.select(np.arange(12)[::-1])
    hashes = [
        one.sha256()
        for one in (images, relabelled, reshaped, reordered, LabelledImages(images.images, images.labels, 4))
    ]
    assert len(set(hashes)) == len(hashes)
    strided = LabelledImages(np.asfortranarray(images.images), images.labels.astype(">i8"), 3)
    assert strided.sha256() == images.sha256()


def test_a_split_that_is_not_the_pinned_one() -> None:
    found = split_images(drawn(20), 0.1, 0.2, "here")
    pinned = {split: part.sha256() for split, part in found.items()}
    check_pinned(found, pinned, "here")
    with pytest.raises(AssetError, match=r"^images here: split 'train' came out with sha256 \w{64}, pinned is 0000"):
        check_pinned(found, {**pinned, "train": "0" * 64}, "here")


def test_images_of_one_class_tell_nothing_apart() -> None:
    pixels = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    one = LabelledImages(pixels, np.zeros(40, dtype=np.int64), 1)
    for split in (lambda: split_images(one, 0.2, 0.2, "here"), lambda: split_official(one, one, "here")):
        with pytest.raises(AssetError, match=r"^images here have 1 class: there is nothing to tell apart"):
            split()

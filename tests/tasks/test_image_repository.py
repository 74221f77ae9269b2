"""Image data sets of a repository, on local rows with pictures: no network is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from qbench.errors import AssetError
from qbench.tasks.image_repository import ImageRepository, _splits
from qbench.tasks.image_splits import SPLITS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["cat", "dog", "eel"]


def rows(count: int, seed: int, label: Any = None, **columns: str) -> datasets.Dataset:
    """Return `count` random 5x4 pictures a class; labels are numbers with names, or of the feature that is given."""
    generator = np.random.default_rng(seed)
    pictures = [Image.fromarray(generator.integers(0, 256, (4, 5), dtype=np.uint8)) for _ in range(3 * count)]
    labels = [number % 3 for number in range(3 * count)]
    if label is not None:
        labels = [NAMES[number] for number in labels]
    image, target = columns.get("image", "image"), columns.get("target", "label")
    features = datasets.Features({image: datasets.Image(), target: label or datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({image: pictures, target: labels}, features=features)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that says which rows each split has, and gives the list of what is asked."""

    def serve(**splits: datasets.Dataset) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def load(repo: str, config: str | None, **options: Any) -> datasets.Dataset:
            asked.append({"repo": repo, "config": config, **options})
            if options["split"] not in splits:
                raise ValueError(f"Unknown split {options['split']}\nsecond line")
            return splits[options["split"]]

        monkeypatch.setattr(datasets, "load_dataset", load)
        _splits.cache_clear()
        return asked

    return serve


def source(**options: Any) -> ImageRepository:
    return ImageRepository(repo="some/animals", revision=COMMIT, **options)


def pixels_of(found: datasets.Dataset, image: str = "image") -> set[bytes]:
    return {np.asarray(picture).tobytes() for picture in found[image]}


def test_the_second_split_is_evaluated_on(hub: Any) -> None:
    train, test = rows(20, 0), rows(4, 1)
    asked = hub(train=train, test=test)
    found = {split: source(config="small").load(split) for split in SPLITS}
    assert asked == [
        {"repo": "some/animals", "config": "small", "revision": COMMIT, "split": split} for split in ("train", "test")
    ]
    pictures = {split: {image.tobytes() for image in part.images} for split, part in found.items()}
    assert pictures["evaluation"] == pixels_of(test)
    assert pictures["train"] | pictures["calibration"] == pixels_of(train)
    assert not pictures["train"] & pictures["calibration"]
    label_of = {np.asarray(row["image"]).tobytes(): row["label"] for row in [*train, *test]}
    for part in found.values():
        assert part.images.shape[1:] == (1, 4, 5) and part.images.dtype == np.uint8
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()
        assert part.classes == 3


def test_a_single_split_is_split_by_hash(hub: Any) -> None:
    hub(all=rows(20, 0, image="picture", target="animal"))
    given = source(train="all", evaluation=None, image="picture", label="animal")
    assert [len(given.load(split)) for split in SPLITS] == [42, 6, 12]


def test_classes_without_numbers_are_numbered_by_name(hub: Any) -> None:
    train = rows(20, 0, label=datasets.Value("string"))
    hub(train=train, test=rows(4, 1, label=datasets.Value("string")))
    found = source().load("train")
    name_of = {np.asarray(row["image"]).tobytes(): row["label"] for row in train}
    assert [NAMES[label] for label in found.labels] == [name_of[image.tobytes()] for image in found.images]


def test_pictures_are_resized(hub: Any) -> None:
    hub(train=rows(20, 0), test=rows(4, 1))
    assert source(size=8).load("evaluation").images.shape == (12, 1, 8, 8)


def test_the_fingerprint_tells_all_that_is_read(hub: Any) -> None:
    asked = hub()
    options = [{}, {"config": "b"}, {"train": "b"}, {"evaluation": None}, {"image": "b"}, {"label": "b"}, {"size": 8}]
    assert len({source(**one).fingerprint()["images"] for one in options}) == len(options)
    assert not asked and source().needs_hub()


def refusal(**options: Any) -> str:
    with pytest.raises(AssetError) as caught:
        source(**options).load("train")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_cannot_be_had_is_told_in_one_line(hub: Any) -> None:
    hub(train=rows(20, 0), test=rows(4, 1))
    place = "images some/animals@0123456789ab"
    assert refusal(evaluation="dev") == f"{place} cannot be loaded: Unknown split dev"
    assert refusal(image="img") == f"{place}: train has no column 'img' (image; has: image, label)"
    assert refusal(label="class") == f"{place}: train has no column 'class' (label; has: image, label)"
    assert refusal(image="label", label="image") == (
        f"{place}: the column 'label' of train holds ClassLabel (allowed: pictures)"
    )


def test_a_row_without_a_class_or_a_picture_is_told_by_its_number(hub: Any) -> None:
    unlabelled = rows(4, 1)
    unlabelled = unlabelled.map(lambda row, index: {"label": -1 if index == 5 else row["label"]}, with_indices=True)
    hub(train=rows(20, 0), test=unlabelled)
    assert refusal() == ("images some/animals: test:5 has -1 for 'label' (allowed: the classes of train)")
    missing = rows(4, 1).to_dict()
    missing["image"][2] = None
    hub(train=rows(20, 0), test=datasets.Dataset.from_dict(missing, features=rows(4, 1).features))
    assert refusal() == "images some/animals: test:2 has no picture"


def test_a_picture_that_cannot_be_read_is_told_by_its_number(hub: Any) -> None:
    damaged = rows(4, 1).to_dict()
    damaged["image"][3] = {"bytes": b"no picture", "path": None}
    hub(train=rows(20, 0), test=datasets.Dataset.from_dict(damaged, features=rows(4, 1).features))
    assert refusal().startswith("images some/animals: test:3 cannot be read as a picture: ")

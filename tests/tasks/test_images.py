"""Sources of images: what a suite may write, and that the sets with a name are the pinned ones."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from qbench.errors import AssetError, SuiteError
from qbench.registry import MODELS
from qbench.suite.entry import resolve_entry
from qbench.suite.source import read_source
from qbench.tasks import assets, images
from qbench.tasks.image_folder import ImageFolder
from qbench.tasks.image_repository import ImageRepository
from qbench.tasks.image_source import ImageSource
from qbench.tasks.image_splits import SPLITS
from qbench.tasks.images import PINNED, Cifar10, Digits, FashionMnist, ImagesField, Mnist5k

from .test_image_folder import put_pictures

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARSE: TypeAdapter[ImageSource] = TypeAdapter(ImagesField)

SIZES = [
    (Digits(), (1078, 269, 450), (1, 8, 8)),
    (Mnist5k(), (3500, 500, 1000), (1, 28, 28)),
    (FashionMnist(), (59000, 1000, 10000), (1, 28, 28)),
]


def require(source: ImageSource) -> None:
    if source.title() in assets.manifest() and assets.asset(source.title()).by_name:
        try:
            assets.find(source.title())
        except AssetError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize(("source", "sizes", "shape"), SIZES, ids=lambda one: getattr(one, "source", ""))
def test_a_named_set_is_the_pinned_one(source: ImageSource, sizes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    require(source)
    found = {split: source.load(split) for split in SPLITS}
    assert tuple(len(part) for part in found.values()) == sizes
    assert {split: part.sha256() for split, part in found.items()} == PINNED[source.title()]
    assert source.fingerprint() == {f"images/{split}": sha256 for split, sha256 in PINNED[source.title()].items()}
    for part in found.values():
        assert part.images.shape[1:] == shape and part.images.dtype == np.uint8
        assert part.images.min() == 0 and part.images.max() == 255
        share = np.bincount(part.labels, minlength=10) / len(part)
        assert part.classes == 10 and (abs(share - 0.1) < 0.01).all()
    pictures = {split: {image.tobytes() for image in part.images} for split, part in found.items()}
    for one, other in combinations(SPLITS, 2):
        assert not pictures[one] & pictures[other]


def test_only_photographs_and_clothes_may_be_mirrored() -> None:
    mirrored = {name for name, kind in images.NAMED.items() if kind.mirrored}
    assert mirrored == {"fashion_mnist", "cifar10"}
    assert not ImageFolder.mirrored and not ImageRepository.mirrored


def test_the_hashes_of_digits_are_told_without_reading_them() -> None:
    program = (
        "import sys\n"
        "from qbench.tasks.images import Digits\n"
        "assert len(Digits().fingerprint()) == 3\n"
        "heavy = {'sklearn', 'torch', 'torchvision', 'datasets', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_digits_that_scikit_learn_changed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn import datasets

    changed = datasets.load_digits()
    changed.images[0, 3, 3] = (changed.images[0, 3, 3] + 1) % 17
    monkeypatch.setattr(datasets, "load_digits", lambda: changed)
    images._digits.cache_clear()
    with pytest.raises(AssetError, match=r"^images digits: split '\w+' came out with sha256 \w{64}, pinned is \w{64}$"):
        Digits().load("train")
    monkeypatch.undo()
    assert len(Digits().load("train")) == 1078


@pytest.mark.parametrize("source", [Mnist5k(), FashionMnist(), Cifar10()], ids=lambda source: source.source)
def test_a_set_that_is_not_there_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: ImageSource
) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    if source.title() == "fashion_mnist":
        known = assets.asset("fashion_mnist")
        elsewhere = known.source.model_copy(update={"folder": tmp_path / "installed"})
        monkeypatch.setattr(
            assets, "manifest", lambda: {"fashion_mnist": known.model_copy(update={"source": elsewhere})}
        )
    with pytest.raises(AssetError, match=rf"run `qbench fetch {source.title()}` with a network$"):
        source.fingerprint()
    fetched: list[str] = []
    monkeypatch.setattr(assets, "fetch", fetched.append)
    source.prepare()
    assert fetched == [source.title()]


@pytest.mark.parametrize(
    ("given", "kind", "title"),
    [
        ("digits", Digits, "digits"),
        ({"source": "mnist_5k"}, Mnist5k, "mnist_5k"),
        ("fashion_mnist", FashionMnist, "fashion_mnist"),
        ("cifar10", Cifar10, "cifar10"),
        ({"folder": "data/birds"}, ImageFolder, "birds"),
        ({"folder": "data/birds", "size": 32}, ImageFolder, "birds@32"),
        ({"repo": "some/birds", "revision": COMMIT}, ImageRepository, "birds"),
        ({"repo": "some/birds", "revision": COMMIT, "evaluation": None, "size": 8}, ImageRepository, "birds@8"),
    ],
)
def test_a_source_survives_being_written_and_read(given: Any, kind: type[ImageSource], title: str) -> None:
    source = PARSE.validate_python(given)
    assert type(source) is kind and source.title() == title
    written = json.loads(PARSE.dump_json(source))
    assert PARSE.validate_python(written) == source
    assert written == given or isinstance(given, dict)
    assert PARSE.validate_python(source) is source
    assert len({source, PARSE.validate_python(given)}) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fashon_mnist", r"unknown image set 'fashon_mnist': did you mean 'fashion_mnist'\?"),
        ({"source": "mnist"}, r"unknown image set 'mnist': did you mean 'mnist_5k'\?"),
        (
            {"idx": "data"},
            r"is not a source of images \(allowed: digits, mnist_5k, fashion_mnist, cifar10, \{folder: PATH",
        ),
        (7, r"7 is not a source of images \(allowed: "),
        ({"folder": "data", "sizes": 8}, "Extra inputs are not permitted"),
        ({"folder": "data", "size": 0}, "greater than or equal to 4"),
        ({"repo": "some/birds"}, "Field required"),
        ({"repo": "some/birds", "revision": "main"}, "'main' is not a full commit hash"),
    ],
)
def test_what_is_no_source(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PARSE.validate_python(given)


def test_a_folder_of_a_suite_lies_inside_the_suites_folder(tmp_path: Path) -> None:
    suite = tmp_path / "suite" / "mine.yaml"
    put_pictures(suite.parent / "birds")
    put_pictures(tmp_path / "outside")
    suite.write_text("name: mine\n")
    source = read_source(suite)

    def images_of(folder: str) -> ImageSource:
        given = {"name": "torchvision", "model": "resnet18", "images": {"folder": folder}}
        return resolve_entry(given, MODELS, source, has_paths=True).images

    assert images_of("birds").load("train").classes == 2
    (suite.parent / "link").symlink_to(tmp_path / "outside")
    for folder in ("../outside", "link", str(tmp_path / "outside")):
        with pytest.raises((ValidationError, SuiteError), match=r"leaves the suite's folder|is absolute"):
            images_of(folder)


def test_the_page_on_images_names_every_source_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text(encoding="utf-8")
    fields = {*images.NAMED, *ImageFolder.model_fields, *ImageRepository.model_fields}
    assert not {field for field in fields if f"`{field}`" not in page}
    for source, sizes, _ in SIZES:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{source.title()}`"))
        assert all(f" {size} " in row for size in sizes)

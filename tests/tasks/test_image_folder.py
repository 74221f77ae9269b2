"""A folder of images: classes are subfolders, pixels are what the files hold, and what is odd is named."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qbench.errors import AssetError
from qbench.tasks.image_folder import ImageFolder
from qbench.tasks.image_pixels import stack_pictures
from qbench.tasks.image_splits import SPLITS

from .test_image_idx import put_idx


def put_pictures(
    folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10, seed: int = 0, colour: bool = False
) -> None:
    """Write random 6x5 pictures, a subfolder a class."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (5, 6, 3) if colour else (5, 6), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def pictures(source: ImageFolder, split: str) -> set[bytes]:
    return {image.tobytes() for image in source.load(split).images}


def pixels_of(file: Path) -> bytes:
    return np.asarray(Image.open(file)).tobytes()


def test_a_subfolder_is_a_class(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"")
    source = ImageFolder(folder=tmp_path)
    label_of = {pixels_of(file): file.parent.name for file in tmp_path.rglob("*.png")}
    for split, count in (("evaluation", 4), ("calibration", 2), ("train", 14)):
        found = source.load(split)
        assert found.images.shape == (count, 1, 5, 6)
        assert np.bincount(found.labels).tolist() == [count // 2] * 2
        told = [("cat", "dog")[label] for label in found.labels]
        assert [label_of[image.tobytes()] for image in found.images] == told
    for one, other in combinations(SPLITS, 2):
        assert not pictures(source, one) & pictures(source, other)


def test_names_of_files_do_not_show(tmp_path: Path) -> None:
    put_pictures(tmp_path / "one")
    put_pictures(tmp_path / "other")
    for file in list((tmp_path / "other").rglob("*.png")):
        file.rename(file.with_name(f"{9 - int(file.stem)}-renamed.png"))
    assert ImageFolder(folder=tmp_path / "one").fingerprint() == ImageFolder(folder=tmp_path / "other").fingerprint()


def test_a_folder_that_changed_is_read_again(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    before = ImageFolder(folder=tmp_path).fingerprint()
    Image.new("L", (6, 5), 7).save(tmp_path / "cat" / "new.png")
    assert ImageFolder(folder=tmp_path).fingerprint() != before


@pytest.mark.parametrize("name", ["test", "val", "evaluation"])
def test_a_second_folder_is_evaluated_on(tmp_path: Path, name: str) -> None:
    put_pictures(tmp_path / "train")
    put_pictures(tmp_path / name, count=3, seed=1)
    copied = tmp_path / "train" / "dog" / "copy.png"
    copied.write_bytes((tmp_path / name / "cat" / "0.png").read_bytes())
    source = ImageFolder(folder=tmp_path)
    assert pictures(source, "evaluation") == {pixels_of(file) for file in (tmp_path / name).rglob("*.png")}
    rest = {pixels_of(file) for file in (tmp_path / "train").rglob("*.png")} - {pixels_of(copied)}
    assert pictures(source, "train") | pictures(source, "calibration") == rest
    assert len(source.load("calibration")) == 4


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put_pictures(tmp_path, classes=("bus", "train"))
    assert ImageFolder(folder=tmp_path).load("train").classes == 2


def test_grey_pictures_are_repeated_where_others_have_colours(tmp_path: Path) -> None:
    put_pictures(tmp_path / "train")
    put_pictures(tmp_path / "test", count=3, seed=1, colour=True)
    source = ImageFolder(folder=tmp_path)
    train = source.load("train").images
    assert train.shape[1] == source.load("evaluation").images.shape[1] == 3
    assert (train == train[:, :1]).all()
    put_pictures(tmp_path / "mixed" / "a")
    put_pictures(tmp_path / "mixed" / "b", classes=("cat",), colour=True)
    (tmp_path / "mixed" / "b" / "cat").rename(tmp_path / "mixed" / "a" / "eel")
    assert ImageFolder(folder=tmp_path / "mixed" / "a").load("train").images.shape[1] == 3


def test_idx_files_are_recognised(tmp_path: Path) -> None:
    written = put_idx(tmp_path)
    source = ImageFolder(folder=tmp_path)
    assert pictures(source, "evaluation") == {image.tobytes() for image in written["t10k-images-idx3-ubyte"]}
    assert len(source.load("train")) + len(source.load("calibration")) == 20
    with pytest.raises(AssetError, match=r"has idx files, which are not resized: leave size out$"):
        ImageFolder(folder=tmp_path, size=8).load("train")


def test_pictures_of_several_sizes_need_one(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    Image.new("L", (8, 9), 7).save(tmp_path / "dog" / "wide.png")
    with pytest.raises(AssetError) as caught:
        ImageFolder(folder=tmp_path).load("train")
    assert str(caught.value) == (
        f"images {tmp_path} are of several sizes: {tmp_path / 'cat' / '0.png'} is 6x5, "
        f"{tmp_path / 'dog' / 'wide.png'} is 8x9: give size: N"
    )
    source = ImageFolder(folder=tmp_path, size=4)
    assert source.load("train").images.shape[1:] == (1, 4, 4)
    assert source.title() == f"{tmp_path.name}@4"


def test_the_middle_is_kept_and_its_shades(tmp_path: Path) -> None:
    striped = np.zeros((10, 30), np.uint8)
    striped[:, 10:20] = 200
    for size in (10, 5, 20):
        found = stack_pictures([("one", Image.fromarray(striped))], size, "here")
        assert found.shape == (1, 1, size, size)
        assert (found[0, 0, :, 1:-1] == 200).mean() > 0.7
        assert found.min() > 100


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_8_bit_modes_become_grey_or_colour(mode: str) -> None:
    found = stack_pictures([("one", Image.new("L", (4, 4), 255).convert(mode))], None, "here")
    assert found.shape[1] == (1 if mode in ("1", "L", "LA") else 3)
    assert (found == 255).all()


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_deeper_pictures_are_refused(mode: str) -> None:
    with pytest.raises(AssetError, match=rf"^one is a picture of mode {mode} \(allowed: 8-bit grey or colour\)$"):
        stack_pictures([("one", Image.new(mode, (4, 4)))], None, "here")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    damaged = tmp_path / "dog" / "3.png"
    whole = damaged.read_bytes()
    for content in (whole[:-30], b"text", b""):
        damaged.write_bytes(content)
        with pytest.raises(AssetError, match=rf"^{damaged} cannot be read as a picture: "):
            ImageFolder(folder=tmp_path).load("train")
    damaged.rename(damaged.with_suffix(".txt"))
    with pytest.raises(AssetError, match=r"3\.txt is no image file \(allowed: \.png, "):
        ImageFolder(folder=tmp_path).load("train")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    put_pictures(tmp_path / "inside")
    put_pictures(tmp_path / "outside", classes=("cat",), count=1, seed=1)
    (tmp_path / "inside" / "cat" / "link.png").symlink_to(tmp_path / "outside" / "cat" / "0.png")
    with pytest.raises(AssetError, match=rf"link\.png is a link that leaves {tmp_path / 'inside'}$"):
        ImageFolder(folder=tmp_path / "inside").load("train")


def refusal(folder: Path) -> str:
    with pytest.raises(AssetError) as caught:
        ImageFolder(folder=folder).load("train")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).replace(str(folder), "HERE")


def test_what_is_no_folder_of_classes(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == "image folder HERE does not exist"
    allowed = "(allowed: a subfolder a class, or idx files)"
    assert refusal(tmp_path) == f"image folder HERE has no subfolders {allowed}"
    (tmp_path / "stray.png").write_bytes(b"")
    assert refusal(tmp_path) == f"HERE/stray.png is not in a folder of a class {allowed}"
    (tmp_path / "stray.png").unlink()
    (tmp_path / "cat").mkdir()
    assert refusal(tmp_path) == "images HERE: there is none"
    put_pictures(tmp_path, classes=("dog",))
    assert refusal(tmp_path).startswith("images HERE have 0 different ones of class 0: too few")


def test_what_may_lie_beside_train(tmp_path: Path) -> None:
    put_pictures(tmp_path / "train")
    allowed = "(allowed: one of test, val, evaluation)"
    assert refusal(tmp_path) == f"image folder HERE has nothing beside train {allowed}"
    put_pictures(tmp_path / "val", count=2, classes=("cat",))
    assert refusal(tmp_path) == "image folder HERE: only one of train and val has 'dog'"
    (tmp_path / "notes").mkdir()
    assert refusal(tmp_path) == "image folder HERE has notes beside train and val (allowed: these two)"
    (tmp_path / "test").mkdir()
    assert refusal(tmp_path) == f"image folder HERE has test and val beside train {allowed}"

"""CIFAR-10's records: class, red, green, blue; five batches to train on and one to evaluate on."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qbench.errors import AssetError
from qbench.tasks import assets, images
from qbench.tasks.image_cifar import parse_records, train_and_test
from qbench.tasks.images import Cifar10

SIDE = 32


def records(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    return pixels, labels, np.hstack([labels[:, None], pixels.reshape(count, -1)]).tobytes()


def archive(folder: Path, members: dict[str, bytes]) -> bytes:
    path = folder / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path.read_bytes()


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cifar10]:
    """Return the source with 20 images a batch in the cache."""
    members = {f"data_batch_{number}.bin": records(20, number)[2] for number in (1, 5, 4, 3, 2)}
    data = archive(tmp_path, {"test_batch.bin": records(20, 9)[2], "batches.meta.txt": b"airplane\n", **members})
    known = assets.asset("cifar10")
    source = known.source.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    monkeypatch.setattr(assets, "manifest", lambda: {"cifar10": known.model_copy(update={"source": source})})
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path / "cache"))
    assets.asset_path("cifar10").parent.mkdir(parents=True)
    assets.asset_path("cifar10").write_bytes(data)
    images._cifar10.cache_clear()
    yield Cifar10()
    images._cifar10.cache_clear()


def test_a_record_is_a_class_and_three_planes() -> None:
    pixels, labels, content = records(12, 0)
    found = parse_records(content, "here")
    assert np.array_equal(found.images, pixels)
    assert np.array_equal(found.labels, labels)
    assert found.classes == 10


def test_a_batch_that_was_cut_off_or_has_another_class() -> None:
    content = records(2, 0)[2]
    for damaged in (content[:-1], b""):
        with pytest.raises(AssetError, match=rf"^here has {len(damaged)} bytes, no whole number of records of 3073$"):
            parse_records(damaged, "here")
    with pytest.raises(AssetError, match=r"^here has an image of class 10, its classes are 0 to 9$"):
        parse_records(b"\x0a" + content[1:], "here")


def test_only_the_test_batch_is_evaluated_on() -> None:
    train, test = train_and_test([("x/data_batch_1.bin", records(3, 1)[2]), ("x/test_batch.bin", records(4, 2)[2])])
    assert (len(train), len(test)) == (3, 4)
    assert np.array_equal(test.images, records(4, 2)[0])


def test_the_archive_is_read_whole(small_cifar: Cifar10) -> None:
    assert len(small_cifar.load("train")) + len(small_cifar.load("calibration")) == 100
    expected = {image.tobytes() for image in records(20, 9)[0]}
    assert {image.tobytes() for image in small_cifar.load("evaluation").images} == expected
    assert small_cifar.fingerprint() == {"images": assets.asset("cifar10").source.sha256}


def test_another_archive_is_not_read(small_cifar: Cifar10) -> None:
    path = assets.asset_path("cifar10")
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(AssetError, match=r"^asset 'cifar10': .* has sha256 \w{64}, pinned is "):
        small_cifar.load("train")
    path.unlink()
    for ask in (small_cifar.fingerprint, lambda: small_cifar.load("train")):
        with pytest.raises(AssetError, match="run `qbench fetch cifar10` with a network"):
            ask()

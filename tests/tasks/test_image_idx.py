"""idx files: an array comes back as it was written, and a damaged file is told by its name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qbench.errors import AssetError
from qbench.tasks.image_idx import TEST, TRAIN, gunzip, has_idx, labelled, parse_idx, read_idx_folder


def idx_bytes(values: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    return head + values.astype(np.uint8).tobytes()


def put_idx(folder: Path, train: int = 20, test: int = 6, packed: bool = True) -> dict[str, np.ndarray]:
    """Write four files of random 3x4 images of 2 classes; return what is in them."""
    generator, found = np.random.default_rng(0), {}
    for (images, labels), count in ((TRAIN, train), (TEST, test)):
        found[images] = generator.integers(0, 256, (count, 3, 4), dtype=np.uint8)
        found[labels] = np.arange(count, dtype=np.uint8) % 2
    for name, values in found.items():
        content = idx_bytes(values)
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    return found


@given(values=arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 3))))
def test_an_array_comes_back(values: np.ndarray) -> None:
    found = parse_idx(idx_bytes(values), 3, "here")
    assert found.dtype == np.uint8
    assert np.array_equal(found, values)


@pytest.mark.parametrize("cut", [0, 3, 10, 16, 51])
def test_a_file_that_was_cut_off(cut: int) -> None:
    content = idx_bytes(np.zeros((3, 3, 4)))
    assert len(content) == 52
    with pytest.raises(AssetError, match=r"^here "):
        parse_idx(content[:cut], 3, "here")


def test_a_file_that_is_too_long_or_of_another_kind() -> None:
    content = idx_bytes(np.zeros((3, 3, 4)))
    with pytest.raises(AssetError, match=r"^here has 37 bytes after its head, which says 3 x 3 x 4$"):
        parse_idx(content + b"0", 3, "here")
    with pytest.raises(AssetError, match=r"^here is no idx file of unsigned bytes with 1 dimensions$"):
        parse_idx(content, 1, "here")
    with pytest.raises(AssetError, match="is no idx file of unsigned bytes"):
        parse_idx(content.replace(b"\x08", b"\x0d", 1), 3, "here")


def test_a_gzip_file_that_was_cut_off_or_is_none() -> None:
    packed = gzip.compress(b"content" * 20)
    assert gunzip(packed, "here") == b"content" * 20
    for damaged in (packed[:-9], packed[:-1], packed[:10] + b"\xff" * 9, b"content"):
        with pytest.raises(AssetError, match=r"^here is no whole gzip file: "):
            gunzip(damaged, "here")


def test_images_without_labels() -> None:
    with pytest.raises(AssetError, match=r"^here has 3 images and 2 labels$"):
        labelled(np.zeros((3, 2, 2), np.uint8), np.zeros(2, np.uint8), 1, "here")


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_the_four_files_of_a_folder(tmp_path: Path, packed: bool) -> None:
    assert not has_idx(tmp_path)
    written = put_idx(tmp_path, packed=packed)
    assert has_idx(tmp_path)
    for found, (images, labels) in zip(read_idx_folder(tmp_path), (TRAIN, TEST), strict=True):
        assert np.array_equal(found.images[:, 0], written[images])
        assert np.array_equal(found.labels, written[labels])
        assert found.classes == 2


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    put_idx(tmp_path)
    damaged = tmp_path / f"{TRAIN[0]}.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(AssetError, match=rf"^{damaged} is no whole gzip file"):
        read_idx_folder(tmp_path)
    (tmp_path / f"{TEST[1]}.gz").unlink()
    with pytest.raises(AssetError, match=rf"^image folder {tmp_path} has idx files but no {TEST[1]} \(nor that with"):
        read_idx_folder(tmp_path)

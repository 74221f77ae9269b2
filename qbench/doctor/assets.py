"""Files from outside: which are there, and whether their bytes are the pinned ones."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator

from qbench.doctor.finding import Finding, some
from qbench.errors import AssetError

_SECONDS = 20


def assets() -> Iterator[Finding]:
    """Hash every asset that is on this machine."""
    from qbench.tasks import assets as known

    sound: list[str] = []
    missing: list[str] = []
    later: list[str] = []
    for name, asset in known.manifest().items():
        try:
            known.find(name)
        except AssetError:
            (later if asset.by_name else missing).append(name)
            continue
        try:
            known.require(name)
            sound.append(name)
        except (AssetError, OSError) as error:
            said = " ".join(str(error).split())
            yield Finding("broken", "assets", said if name in said else f"{name}: {said}", f"qbench fetch {name}")
    if missing:
        yield Finding("warning", "assets", f"{some(missing, 9)}: not fetched yet", "qbench fetch")
    if sound:
        yield Finding("ok", "assets", f"{some(sound, 9)}: there, with the pinned bytes")
    if later:
        yield Finding("ok", "assets", f"{some(later, 9)}: fetched when a suite needs it")


def network() -> Iterator[Finding]:
    """Ask where assets come from whether it answers; nothing is fetched."""
    from qbench.tasks import assets as known

    sources = {name: asset.source for name, asset in known.manifest().items()}
    package = next((one.package for one in sources.values() if isinstance(one, known.PackageSource)), None)
    if package is not None:
        command = [sys.executable, "-m", "pip", "index", "versions", package, "--disable-pip-version-check"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
            said = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
        except subprocess.TimeoutExpired:
            said = f"no answer in {_SECONDS} seconds"
        if said:
            yield Finding(
                "warning", "network", f"the package index: {said:.200}", "see `pip config list` and your proxy"
            )
        else:
            yield Finding("ok", "network", "the package index answers")
    for name, source in sources.items():
        if isinstance(source, known.UrlSource):
            try:
                with urllib.request.urlopen(urllib.request.Request(source.url, method="HEAD"), timeout=_SECONDS):
                    yield Finding("ok", "network", f"where {name} comes from answers")
            except OSError as error:
                said = " ".join(str(error).split())
                yield Finding("warning", "network", f"where {name} comes from: {said:.200}", "try again later")

"""What has to be the same on every machine of a run: versions, and the code that numbers come from."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import qbench
from qbench.runner.identity import RUNNER_SOURCES
from qbench.runner.sources import source_sha256

PACKAGES = ("torch", "torchvision", "transformers", "numpy", "tokenizers", "safetensors", "datasets", "lm-eval", "ray")
"""What numbers, or the way of a cell to a node, depend on."""


def here() -> dict[str, str]:
    """Return what this machine has, by what it is; nothing is imported for it."""
    code = "".join(source_sha256(name) for name in RUNNER_SOURCES)
    return {
        "qbench": qbench.__version__,
        "source of qbench": hashlib.sha256(code.encode()).hexdigest()[:12],
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return in words what is otherwise than it has to be; nothing where all is the same.

    Examples
    --------
    >>> differences({"torch": "2.13.0", "numpy": "2.1"}, {"torch": "2.9.0", "numpy": "2.1"})
    'torch 2.9.0 (here 2.13.0)'
    """
    unlike = [name for name in wanted if found.get(name) != wanted[name]]
    return ", ".join(f"{name} {found.get(name, 'missing')} (here {wanted[name]})" for name in unlike)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"

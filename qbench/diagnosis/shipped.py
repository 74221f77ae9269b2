"""The corrections that come with qbench, fitted on its published records; see `docs/diagnose.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from qbench import atomic
from qbench.diagnosis.correction import METHODS, Correction, Corrections

_NAME = "corrections.json"


def path() -> Path:
    """Return the file that holds them."""
    return Path(str(files("qbench.diagnosis").joinpath(_NAME)))


def corrections() -> dict[str, Correction]:
    """Return them by method."""
    found = json.loads(path().read_text(encoding="utf-8"))
    return {method: Correction(**found["methods"][method]) for method in METHODS}


def families() -> list[str]:
    """Return the families of models that they were fitted on."""
    found: list[str] = json.loads(path().read_text(encoding="utf-8"))["families"]
    return found


def to_json(fitted: Corrections, of_families: Iterable[str]) -> str:
    """Return what the file holds."""
    methods = {method: {name: round(value, 6) for name, value in vars(one).items()} for method, one in fitted.items()}
    held: dict[str, Any] = {"families": sorted(of_families), "methods": methods}
    return json.dumps(held, indent=1, sort_keys=True) + "\n"


def write(fitted: Corrections, of_families: Iterable[str]) -> Path:
    """Put fitted corrections into the file, and return it."""
    where = path()
    atomic.write_text(where, to_json(fitted, of_families))
    return where

"""Files of the cache folder that a model's task reads, carried to machines that do not have them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench import atomic
from qbench.errors import AssetError
from qbench.spec import Spec
from qbench.tasks.assets import asset_path, cache_folder, manifest
from qbench.tasks.causal_lm import LanguageModelSpec
from qbench.tasks.corpus import SPLITS, split_path
from qbench.tasks.image_classifier import ImageModelSpec
from qbench.tasks.packaged import PackagedLM
from qbench.tasks.text import TextPair, ThreeTexts
from qbench.tasks.text_source import AnyText


@dataclass(frozen=True)
class Shared:
    """A file on its way.

    Attributes
    ----------
    sha256 : str
        Of its bytes.
    handle : object
        What its bytes are got by.
    """

    sha256: str
    handle: Any


def files_of(model: Spec) -> dict[str, Path]:
    """Return the files that a model and its data are read from, by their path in the cache folder.

    Parameters
    ----------
    model : Spec
        What a suite names. Of a task of a plugin, and of what lies in a folder of the user's, nothing is known: every
        machine must have it in the same place.
    """
    found: list[Path] = []
    if isinstance(model, PackagedLM):
        found += model.folder().iterdir()
    if isinstance(model, LanguageModelSpec):
        text: AnyText = getattr(model, "text", ThreeTexts())
        parts = [text.calibration, text.evaluation] if isinstance(text, TextPair) else [text]
        if any(isinstance(part, ThreeTexts) for part in parts):
            found += map(split_path, SPLITS)
    elif isinstance(model, ImageModelSpec) and (name := model.source().title()) in manifest():
        path = asset_path(name)
        found += path.iterdir() if path.is_dir() else [path]
    root = cache_folder()
    return {path.relative_to(root).as_posix(): path for path in sorted(found) if path.exists()}


def bring(name: str, shared: Shared, get: Callable[[Any], Any]) -> None:
    """Put a file into this machine's cache folder, unless it is there: whoever reads it there verifies it.

    Parameters
    ----------
    name : str
        Its path in the cache folder.
    shared : Shared
        The file.
    get : callable
        Returns the bytes that a handle stands for.

    Raises
    ------
    AssetError
        What has arrived is not what was sent.
    UnwritableError
        It cannot be kept.
    """
    path = cache_folder() / name
    if path.exists():
        return
    data = memoryview(get(shared.handle))
    found = hashlib.sha256(data).hexdigest()
    if found != shared.sha256:
        raise AssetError(f"{name} arrived with sha256 {found}, and {shared.sha256} was sent: run again")
    atomic.write_pieces(path, (data,))

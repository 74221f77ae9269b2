"""Tensors of a checkpoint that are read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from qbench.errors import AssetError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class LazyCheckpoint:
    """A folder with safetensors weights, in one file or in several with an index.

    Parameters
    ----------
    folder : Path
        Made by ``save_pretrained``.

    Raises
    ------
    AssetError
        It holds neither a ``model.safetensors`` nor an index of several such files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if (folder / _INDEX).is_file():
            self._files: dict[str, str] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        elif (folder / _SINGLE).is_file():
            with safe_open(folder / _SINGLE, "pt") as file:
                self._files = dict.fromkeys(file.keys(), _SINGLE)
        else:
            raise AssetError(f"model folder {folder} holds neither {_SINGLE} nor {_INDEX}")

    def names(self) -> frozenset[str]:
        """Return the names of all tensors."""
        return frozenset(self._files)

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors with their names, file by file.

        They lie in the file's own pages: whoever keeps one makes a copy, before the next is asked for.

        Raises
        ------
        AssetError
            A file is missing or damaged.
        """
        for name in sorted({self._files[name] for name in names}):
            try:
                with safe_open(self._folder / name, "pt") as file:
                    for wanted in names:
                        if self._files[wanted] == name:
                            yield wanted, file.get_tensor(wanted)
            except Exception as error:  # safetensors raises kinds of its own
                raise AssetError(f"{self._folder / name} cannot be read: {str(error).splitlines()[0]}") from error

"""The folder where the ranks of a training meet: what they are given, what they find, and why one ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from qbench.quant.block_grid import BlockGrid

_PARTS = ("scale", "zero_point", "table")


@dataclass(frozen=True)
class LastWords:
    """Why a rank ended.

    Attributes
    ----------
    kind : str
        ``diverged``; ``failed``: the cell's own fault, or too little memory; ``error``: a bug, or another rank is gone.
    text : str
        In one line.
    """

    kind: Literal["diverged", "failed", "error"]
    text: str


@dataclass(frozen=True)
class Meeting:
    """A folder for the ranks of one training.

    Attributes
    ----------
    folder : Path
        Theirs alone.
    """

    folder: Path

    @property
    def store(self) -> Path:
        """The file through which torch.distributed finds the ranks."""
        return self.folder / "store"

    def leave_grids(self, grids: Mapping[str, BlockGrid]) -> None:
        """Leave the layers' grids for the ranks."""
        tensors = [item for name, grid in grids.items() for item in grid_tensors(name, grid).items()]
        save_file({name: one.cpu().contiguous() for name, one in tensors}, self.folder / "grids")

    def grids(self, bare: Mapping[str, BlockGrid]) -> dict[str, BlockGrid]:
        """Return the grids that were left.

        Parameters
        ----------
        bare : mapping of str to BlockGrid
            The same without tensors; see `without_tensors`.
        """
        return with_tensors(bare, load_file(self.folder / "grids"))

    def leave_found(self, rank: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Leave what a rank has found of its rows."""
        save_file({name: one.cpu().contiguous() for name, one in tensors.items()}, self.folder / f"rows-{rank}")
        (self.folder / f"facts-{rank}").write_text(json.dumps(facts), encoding="utf-8")

    def found(self, rank: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what a rank has left: tensors and facts."""
        facts: dict[str, Any] = json.loads((self.folder / f"facts-{rank}").read_text(encoding="utf-8"))
        return load_file(self.folder / f"rows-{rank}"), facts

    def say(self, rank: int, words: LastWords) -> None:
        """Leave why a rank ends."""
        said = json.dumps({"kind": words.kind, "text": words.text})
        (self.folder / f"words-{rank}").write_text(said, encoding="utf-8")

    def last_words(self, rank: int) -> LastWords | None:
        """Return why a rank ended; None where it did not say."""
        try:
            return LastWords(**json.loads((self.folder / f"words-{rank}").read_text(encoding="utf-8")))
        except (OSError, ValueError):  # killed before, or while it wrote
            return None


def grid_tensors(name: str, grid: BlockGrid) -> dict[str, Tensor]:
    """Return the tensors of a layer's grid, by names that begin with the layer's."""
    parts = {part: getattr(grid, part) for part in _PARTS}
    return {f"{name}.{part}": value for part, value in parts.items() if value is not None}


def without_tensors(grids: Mapping[str, BlockGrid]) -> dict[str, BlockGrid]:
    """Return grids that have their levels and sizes alone."""
    nothing: dict[str, Any] = dict.fromkeys(_PARTS)
    return {name: replace(grid, **nothing) for name, grid in grids.items()}


def with_tensors(bare: Mapping[str, BlockGrid], tensors: Mapping[str, Tensor]) -> dict[str, BlockGrid]:
    """Return grids with their tensors, by the names of `grid_tensors`."""
    found = {}
    for name, grid in bare.items():
        parts: dict[str, Any] = {part: tensors.get(f"{name}.{part}") for part in _PARTS}
        found[name] = replace(grid, **parts)
    return found

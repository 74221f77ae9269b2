"""Files that trainings leave on the way: one a cell, to go on from there after a kill.

A file is in the safetensors format, with all that is no tensor as JSON in its header, and is written in one piece or
not at all. It is good for one cell on one ground: sums come out with other last bits elsewhere, and a training that
went on with them would be neither the one nor the other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qbench import atomic
from qbench.errors import CellError
from qbench.geometry.trajectory import Trajectory
from qbench.methods.checkpoints import Snapshot
from qbench.store.ground import BYTES_DEPEND_ON

FORMAT = 1
"""Raised when what is in a file, or what it means, changes."""

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def fingerprint(cell_id: str, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what must be the same where a training goes on: the cell, this format, and the ground of its numbers.

    Parameters
    ----------
    cell_id : str
        The cell's.
    environment : mapping
        Of the cell's record; see `qbench.runner.machine.describe`.
    """
    ground = {name: str(environment.get(name)) for name in BYTES_DEPEND_ON if name != "lm-eval"}
    return {"cell": cell_id, "format": str(FORMAT), **ground}


class CheckpointFile:
    """The checkpoint of one cell; see `qbench.methods.checkpoints.Checkpoints`.

    Parameters
    ----------
    path : Path
        The file.
    seconds : float
        How much time goes by from one checkpoint to the next; at 0 none is written, and one that is there is read.

    Attributes
    ----------
    resumed_at : int or None
        The step that training went on from, where it did.
    """

    def __init__(self, path: Path, seconds: float = 0.0) -> None:
        self.path, self._every = path, seconds
        self.resumed_at: int | None = None
        self._fingerprint: dict[str, str] = {}
        self._earlier = 0.0
        self._started = self._last = time.monotonic()

    def begin(self, found: Mapping[str, str]) -> None:
        """Begin to count the time; what is read and written from now on has this fingerprint."""
        self._fingerprint, self._earlier, self.resumed_at = dict(found), 0.0, None
        self._started = self._last = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since `begin`, with those of the processes before and without those of writing here."""
        return self._earlier + time.monotonic() - self._started

    def load(self) -> Snapshot | None:
        """Return what an earlier process left of this cell; None where there is no file.

        Raises
        ------
        CellError
            The file is damaged, or is of another ground.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                told = json.loads((file.metadata() or {})["training"])
                was, facts, seconds = dict(told["fingerprint"]), dict(told["facts"]), float(told["seconds"])
                self._require_same(was)
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            if _sha256(tensors, facts) != told["sha256"]:
                raise ValueError("its bytes are not those that were written")
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            said = str(error).partition("\n")[0]
            raise CellError(f"{self.path} is no checkpoint ({said:.120}); {_CURE}") from error
        self._earlier, self.resumed_at = seconds, int(facts["steps"])
        return Snapshot(tensors, facts)

    def _require_same(self, was: Mapping[str, str]) -> None:
        for name, now in self._fingerprint.items():
            if was.get(name) != now:
                word = _WORDS.get(name, name)
                raise CellError(
                    f"{self.path} is of a training on another {word} (was {was.get(name)}, is {now}): numbers would be "
                    f"others from there on; the same {word} goes on from it{_HOW.get(name, '')}, and {_CURE}"
                )

    def due(self) -> bool:
        """Return whether it is time to save."""
        return self._every > 0 and time.monotonic() - self._last >= self._every

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot in the place of the last one.

        Raises
        ------
        UnwritableError
            The disk is full, say; the last one is as it was.
        """
        before = time.monotonic()
        told = {
            "fingerprint": self._fingerprint,
            "facts": snapshot.facts,
            "seconds": self.elapsed(),
            "sha256": _sha256(snapshot.tensors, snapshot.facts),
        }
        _write(self.path, snapshot.tensors, {"training": json.dumps(told)})
        self._last = time.monotonic()
        self._started += self._last - before


class Clock:
    """The time that a method takes, in this process and in those before it that left a checkpoint.

    Parameters
    ----------
    checkpoints : CheckpointFile or None
        Of the cell.
    found : mapping of str to str
        Its `fingerprint`.

    Attributes
    ----------
    checkpoints : CheckpointFile or None
        As given.
    """

    def __init__(self, checkpoints: CheckpointFile | None, found: Mapping[str, str]) -> None:
        self.checkpoints, self._found, self._started = checkpoints, found, 0.0
        self._watch: Trajectory | None = None
        self._looked = 0.0

    def start(self, watch: Trajectory | None = None) -> None:
        """Begin to count: the method is about to be asked.

        Parameters
        ----------
        watch : Trajectory, optional
            Who looks on; the time that takes is not the method's.
        """
        self._watch, self._looked = watch, 0.0 if watch is None else watch.seconds
        self._started = time.monotonic()
        if self.checkpoints is not None:
            self.checkpoints.begin(self._found)

    def stop(self) -> float:
        """Return the seconds that the method has taken."""
        seconds = time.monotonic() - self._started if self.checkpoints is None else self.checkpoints.elapsed()
        watch, self._watch = self._watch, None
        return seconds if watch is None else seconds - (watch.seconds - self._looked)

    def facts(self) -> dict[str, int]:
        """Return what a record says of a training that went on."""
        resumed = None if self.checkpoints is None else self.checkpoints.resumed_at
        return {} if resumed is None else {"resumed_at_step": resumed}


_WORDS = {"device_name": "processor", "cpu_capability": "instruction set", "threads": "number of threads"}
_HOW = {"threads": " (processes share out the cores: --jobs sets it)"}
_CURE = "--fresh begins the cell again"


def _bytes_of(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data if plain.numel() else memoryview(b"")


def _sha256(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(_bytes_of(tensors[name]))
    return found.hexdigest()


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write safetensors one after the other: the library's own way has all of them in memory twice."""
    header: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for name, tensor in tensors.items():
        end = place + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = [len(text).to_bytes(8, "little"), text]
    atomic.write_pieces(path, chain(start, map(_bytes_of, tensors.values())))

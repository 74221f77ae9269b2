"""What a training leaves on the way, to go on from there: the state after a step, and who keeps it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """A training after a step.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By name; they may be those of the training itself, and must be written before it goes on.
    facts : dict
        All else, as JSON can hold it.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix and a dot, by the rest of their names."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}


class Checkpoints(Protocol):
    """Keeps the last snapshot of a training where it outlives the process."""

    def load(self) -> Snapshot | None:
        """Return what an earlier process left of this very training; None where there is nothing."""

    def due(self) -> bool:
        """Return whether it is time to save."""

    def save(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in the place of the last one."""


def random_state() -> Snapshot:
    """Return the state of every generator of this process that a method may draw from."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_initialized():
        tensors |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    python = [version, list(words), gauss]
    return Snapshot(tensors, {"python": python, "numpy": [kind, int(position), int(has_gauss), float(cached)]})


def set_random_state(snapshot: Snapshot) -> None:
    """Put every generator of this process where `random_state` found it."""
    version, words, gauss = snapshot.facts["python"]
    random.setstate((version, tuple(words), gauss))
    kind, position, has_gauss, cached = snapshot.facts["numpy"]
    keys = snapshot.tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))
    torch.set_rng_state(snapshot.tensors["torch"])
    on_cuda = snapshot.part("cuda")
    if on_cuda:
        torch.cuda.set_rng_state_all([on_cuda[str(index)] for index in range(len(on_cuda))])

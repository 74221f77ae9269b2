"""The embedded model zoo: which models there are, how they were trained, and where their checkpoints are."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from qbench import atomic
from qbench.errors import AssetError, UnknownNameError

FOLDER = Path(__file__).parents[1] / "zoo"
Phase = Literal["stable", "decayed"]


class Architecture(BaseModel):
    """The fields of a Llama configuration that differ between the zoo's models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int


class Recipe(BaseModel):
    """Warm-up-stable-decay training with AdamW.

    Attributes
    ----------
    steps : int
        All optimizer steps, warm-up and decay included.
    batch_size, sequence_length : int
        Sequences a step, tokens a sequence.
    learning_rate : float
        The constant rate of the stable phase.
    warmup_steps : int
        Steps of the linear rise.
    decay_share : float
        Share of the steps, at the end, in which the rate falls linearly to zero.
    weight_decay, clip_norm, beta1, beta2 : float
        AdamW and gradient clipping; matrices only are decayed.
    precision : str
        Type of the matrix products, forward and backward; weights and optimizer state are float32 in either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch_size: int
    sequence_length: int = 128
    learning_rate: float
    warmup_steps: int = 100
    decay_share: float = 0.25
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def decay_start(self) -> int:
        """The step at which the decay begins; the ``stable`` checkpoint is taken there."""
        return round(self.steps * (1 - self.decay_share))

    @property
    def tokens(self) -> int:
        """Training tokens seen by the end."""
        return self.steps * self.batch_size * self.sequence_length


class ZooModel(BaseModel):
    """One embedded model.

    Attributes
    ----------
    about : str
        One line for people.
    seeds : tuple of int
        Training seeds.
    architecture, recipe
        What is trained, and how.
    sha256 : dict
        Pinned hash of each checkpoint, by seed and phase.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    seeds: tuple[int, ...]
    architecture: Architecture
    recipe: Recipe
    sha256: dict[int, dict[Phase, str]] = {}


@cache
def models() -> dict[str, ZooModel]:
    """Return the embedded models by name."""
    raw = yaml.safe_load(Path(__file__).with_name("zoo.yaml").read_text())
    return TypeAdapter(dict[str, ZooModel]).validate_python(raw)


def model(name: str) -> ZooModel:
    """Return the embedded model called `name`, or raise `UnknownNameError`."""
    if name not in models():
        raise UnknownNameError("zoo model", name, models())
    return models()[name]


def checkpoint_path(name: str, seed: int, phase: Phase) -> Path:
    """Return where a checkpoint is kept in the package."""
    return FOLDER / name / f"seed{seed}" / f"{phase}.safetensors"


def require_checkpoint(name: str, seed: int, phase: Phase) -> str:
    """Return the sha256 of a checkpoint after making sure that the file has it.

    Raises
    ------
    AssetError
        There is no such checkpoint, or its bytes are not the pinned ones.
    """
    pinned = model(name).sha256.get(seed, {}).get(phase)
    path = checkpoint_path(name, seed, phase)
    if pinned is None or not path.exists():
        shipped = ", ".join(str(one) for one in model(name).sha256) or "none"
        raise AssetError(f"no {phase} checkpoint of {name}, seed {seed}, is shipped (shipped seeds: {shipped})")
    found = atomic.sha256_file(path)
    if found != pinned:
        raise AssetError(f"{path} has sha256 {found}, pinned is {pinned}: reinstall qbench")
    return found

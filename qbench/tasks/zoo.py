"""The embedded model zoo: which models there are, how they were trained, and where their checkpoints are."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from qbench import atomic
from qbench.errors import AssetError, UnknownNameError
from qbench.tasks.image_zoo import ImageArchitecture, ImageRecipe
from qbench.tasks.images import ImagesField
from qbench.tasks.recipe import Schedule

FOLDER = Path(__file__).parents[1] / "zoo"
Phase = Literal["stable", "decayed"]


class Architecture(BaseModel):
    """The fields of a Llama configuration that differ between the zoo's models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int


class Recipe(Schedule):
    """How a language model is trained; see `Schedule`.

    Attributes
    ----------
    sequence_length : int
        Tokens a sequence.
    """

    sequence_length: int = 128

    @property
    def tokens(self) -> int:
        """Training tokens seen by the end."""
        return self.samples * self.sequence_length


class ZooEntry(BaseModel):
    """What is said of every embedded model.

    Attributes
    ----------
    about : str
        One line for people.
    seeds : tuple of int
        Training seeds.
    sha256 : dict
        Pinned hash of each checkpoint, by seed and phase.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    seeds: tuple[int, ...]
    sha256: dict[int, dict[Phase, str]] = {}


class ZooModel(ZooEntry):
    """An embedded language model.

    Attributes
    ----------
    architecture, recipe
        What is trained, and how.
    """

    architecture: Architecture
    recipe: Recipe


class ZooClassifierModel(ZooEntry):
    """An embedded image classifier.

    Attributes
    ----------
    images : ImageSource
        What it is trained and evaluated on.
    architecture, recipe
        What is trained, and how.
    """

    images: ImagesField
    architecture: ImageArchitecture
    recipe: ImageRecipe


@cache
def models() -> dict[str, ZooModel | ZooClassifierModel]:
    """Return the embedded models by name."""
    raw = yaml.safe_load(Path(__file__).with_name("zoo.yaml").read_text())
    kinds = {name: ZooClassifierModel if "images" in entry else ZooModel for name, entry in raw.items()}
    return {name: kinds[name].model_validate(entry) for name, entry in raw.items()}


def model(name: str) -> ZooModel | ZooClassifierModel:
    """Return the embedded model called `name`, or raise `UnknownNameError`."""
    if name not in models():
        raise UnknownNameError("zoo model", name, models())
    return models()[name]


def language_model(name: str) -> ZooModel:
    """Return the embedded language model called `name`, or raise `UnknownNameError`."""
    found = model(name)
    if not isinstance(found, ZooModel):
        raise UnknownNameError(
            "language model", name, [key for key, one in models().items() if isinstance(one, ZooModel)]
        )
    return found


def classifier(name: str) -> ZooClassifierModel:
    """Return the embedded image classifier called `name`, or raise `UnknownNameError`."""
    found = model(name)
    if not isinstance(found, ZooClassifierModel):
        known = [key for key, one in models().items() if isinstance(one, ZooClassifierModel)]
        raise UnknownNameError("image classifier", name, known)
    return found


def design_sha256(name: str) -> str:
    """Return the hash of what is said of a model beside its checkpoints: architecture, recipe and data.

    The same weights compute something else under another number of heads, say.
    """
    said = model(name).model_dump(mode="json", exclude={"about", "seeds", "sha256"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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

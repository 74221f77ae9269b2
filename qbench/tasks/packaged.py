"""Real language models that come in a package: a clean copy of each is made in the cache, once."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from qbench import atomic
from qbench.errors import AssetError
from qbench.spec import Spec
from qbench.tasks import assets
from qbench.tasks.causal_lm import LanguageModelSpec, PretrainedLM
from qbench.tasks.gguf_checkpoint import WEIGHTS, config_sha256, convert_apart, tensors_sha256
from qbench.tasks.text import TextField, ThreeTexts


@dataclass(frozen=True)
class Package:
    """Where a packaged model comes from, and what its copy must hold.

    Attributes
    ----------
    asset : str
        The asset that holds its GGUF file.
    gguf : str
        The sha256 of that file.
    tensors : str
        The sha256 of the copy's tensors; see `tensors_sha256`.
    """

    asset: str
    gguf: str
    tensors: str


PACKAGES = {
    "smollm2-135m": Package(
        asset="smollm2_135m",
        gguf="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        tensors="f5cb6e76371510723e09a423faeb69c6b5f34d3191d42f1a5e08ba455adb634e",
    ),
}
"""The packaged models by name."""

STORED = "de-quantised Q4_1 (4 bits, groups of 32, float minimum)"
"""What the weights of all packaged models are."""

_STORED_BITS, _STORED_GROUP = 4, 32


class PackagedLM(PretrainedLM):
    """A real language model whose weights were stored in 4 bits and are read de-quantised; seeds draw calibration data.

    Attributes
    ----------
    window, calibration_windows, evaluation_windows : int
        As for all language models; the defaults are what a few cores can run in minutes.
    text : text source
        As for ``causal_lm``.
    """

    sources: ClassVar[tuple[str, ...]] = (*LanguageModelSpec.sources, "qbench.tasks.gguf_checkpoint")

    window: Annotated[int, Field(ge=8)] = 512
    calibration_windows: Annotated[int, Field(ge=1)] = 20
    evaluation_windows: Annotated[int, Field(ge=1)] = 20
    text: TextField = ThreeTexts(domains=("enwiki_2016",))

    def label(self) -> str:
        """Return the name with every option that changes numbers and is not at its default."""
        options = self.changed_options(but={"device_map", "text"})
        if self.text != type(self).model_fields["text"].default:
            options.append(f"text={_short(self.model_dump()['text'])}")
        return f"{self.name}[{','.join(options)}]" if options else self.name

    def folder(self) -> Path:
        """Return where its copy is kept, if it is there or not."""
        return assets.cache_folder() / "models" / f"{self.name}-{PACKAGES[self.name].gguf[:12]}"

    def place(self) -> tuple[str, dict[str, str]]:
        """Return the folder of its copy; see `PretrainedLM.place`."""
        return str(self._copy()), {}

    def prepare(self) -> None:
        """Fetch the text and the model where they are missing, and make the copy."""
        super().prepare()
        make_copy(self.name)

    def facts(self) -> dict[str, Any]:
        """Return what the weights are, and the number format where it is not float32."""
        return {"weights": STORED, **super().facts()}

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return the hashes of the weights, the configuration, the tokenizer and the text."""
        folder = self._copy()
        return {
            "weights": _verified(self.name, folder),
            "model/config.json": config_sha256(folder / "config.json"),
            "model/tokenizer.json": atomic.sha256_file(folder / "tokenizer.json"),
            **self.text.fingerprint(),
            **self.tasks_fingerprint(),
        }

    def refuses_quantizer(self, quantizer: Spec, bits: int) -> str | None:
        """Return why a grid that the stored weights lie on already tells nothing; None for all others."""
        if (reason := super().refuses_quantizer(quantizer, bits)) is not None:
            return reason
        if not _holds_stored_grid(quantizer, bits):
            return None
        return (
            f"{self.name} is de-quantised Q4_1: its weights lie on this grid already, so rounding is lossless and says "
            "nothing"
        )

    def _copy(self) -> Path:
        folder = self.folder()
        if not folder.is_dir():
            raise AssetError(
                f"model {self.name!r} is not in the cache ({folder.parent}): "
                f"run `qbench fetch {PACKAGES[self.name].asset}` with a network"
            )
        return folder


def make_copy(name: str) -> Path:
    """Make the copy of a packaged model where it is missing, and return its folder.

    Raises
    ------
    AssetError
        Its package could not be brought, or what came of it is not what was pinned.
    """
    folder, package = PackagedLM(name=name).folder(), PACKAGES[name]
    if folder.is_dir():
        return folder
    assets.fetch(package.asset)
    atomic.require_writable(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        gguf, made = Path(temporary) / f"{name}.gguf", Path(temporary) / "copy"
        ((_, content),) = assets.read_members(package.asset)
        _compare(name, "its GGUF file", hashlib.sha256(content).hexdigest(), package.gguf)
        gguf.write_bytes(content)
        made.mkdir()
        convert_apart(gguf, made)
        _compare(name, "its converted tensors", tensors_sha256(made / WEIGHTS), package.tensors)
        try:
            made.replace(folder)
        except OSError:
            if not folder.is_dir():  # another process was quicker
                raise
    return folder


@cache
def _verified(name: str, folder: Path) -> str:
    found, pinned = tensors_sha256(folder / WEIGHTS), PACKAGES[name].tensors
    if found != pinned:
        raise AssetError(
            f"model {name!r}: the tensors in {folder / WEIGHTS} have sha256 {found}, pinned is {pinned}: "
            f"remove the folder and run `qbench fetch {PACKAGES[name].asset}`"
        )
    return found


def _compare(name: str, what: str, found: str, pinned: str) -> None:
    if found != pinned:
        raise AssetError(f"model {name!r}: {what} has sha256 {found}, pinned is {pinned}: it was not kept")


def _holds_stored_grid(quantizer: Spec, bits: int) -> bool:
    """Return whether a grid from a group's minimum to its maximum has all levels of the stored one.

    The steps of 4 bits are 15 a group; a finer grid has them where its own number of steps is a multiple.
    """
    granularity: Any = getattr(quantizer, "granularity", None)
    shared = (getattr(granularity, "kind", None), getattr(granularity, "group_size", None))
    if shared != ("per_group", _STORED_GROUP) or (2**bits - 1) % (2**_STORED_BITS - 1) != 0:
        return False
    levels = getattr(quantizer, "levels", None)
    return levels is not None and bool(getattr(levels(bits), "real_zero_point", False))


def _short(written: Any) -> str:
    """Return how a text is told in a label: without where it lies, and without what is left out."""
    if isinstance(written, dict):
        written = list(written.values())
    if isinstance(written, list | tuple):
        return " ".join(_short(part) for part in written if part)
    return written.name if isinstance(written, Path) else str(written).rpartition("/")[2]

"""What every entry under a suite's `models` is: a model with its data, before any of it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.tasks.image_task import ImageTask
    from qbench.tasks.language import LanguageTask

_BLOCK_BY_BLOCK, _STREAMING = "rtn, gptq", "margin, layer_margins"


class ModelSpec(Spec):
    """Base of the language models and image classifiers.

    Attributes
    ----------
    metrics : tuple of str
        The metrics of a suite that it can measure.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss",)

    def load(self, seed: int, device: str) -> LanguageTask | ImageTask:
        """Load the model and its data.

        Parameters
        ----------
        seed : int
            The cell's seed.
        device : str
            Torch device.

        Raises
        ------
        AssetError
            A file is missing (the message names the command that brings it) or is not what was pinned.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Bring what the task reads into the cache, before any cell runs.

        Raises
        ------
        AssetError
            Something is missing and cannot be fetched; the message names the command that brings it.
        """
        raise NotImplementedError

    def needs_hub(self) -> bool:
        """Return whether the model or its data come from a repository."""
        return False

    def has_batch_norm(self) -> bool:
        """Return whether the model has batch norms, as far as is known before it is loaded."""
        return True

    def is_streamed(self) -> bool:
        """Return whether one decoder block at a time is in memory, as ``device_map: streamed`` says."""
        return getattr(self, "device_map", "whole") == "streamed"

    def measures(self) -> tuple[str, ...]:
        """Return the metrics that it can measure with its options: a streamed model gives no more than the loss."""
        return ("loss",) if self.is_streamed() else self.metrics

    def refuses_method(self, method: Spec) -> str | None:
        """Return why a method or a probe cannot be used on the model.

        It does something about batch norm, and the model is known to have none; or it needs the whole model, of which
        one block at a time is in memory.
        """
        is_probe = hasattr(method, "streams")
        if self.is_streamed() and not getattr(method, "streams" if is_probe else "block_by_block", False):
            allowed = _STREAMING if is_probe else _BLOCK_BY_BLOCK
            return f"{method.name} needs the whole model in memory (allowed for device_map: streamed: {allowed})"
        bn: Any = getattr(method, "bn", "keep")
        if bn == "keep" or self.has_batch_norm():
            return None
        return f"{self.label()} has no batch norm: there is nothing to {bn}"

    def refuses_quantizer(self, quantizer: Spec, bits: int) -> str | None:
        """Return why a quantizer cannot be used: static ranges of inputs are found in the whole model."""
        asked = getattr(quantizer, "activations", None)
        if not self.is_streamed() or asked is None or asked.scale == "dynamic":
            return None
        return (
            "static ranges of inputs are found with the whole model in memory (allowed for device_map: streamed: "
            "activations with scale: dynamic)"
        )

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return hashes of everything that is read: weights and data.

        Raises
        ------
        AssetError
            A file is missing.
        """
        raise NotImplementedError

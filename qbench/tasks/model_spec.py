"""What every entry under a suite's `models` is: a model with its data, before any of it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.tasks.image_task import ImageTask
    from qbench.tasks.language import LanguageTask


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

    def refuses_method(self, method: Spec) -> str | None:
        """Return why a method that does something about batch norm cannot be used on a model known to have none."""
        bn: Any = getattr(method, "bn", "keep")
        if bn == "keep" or self.has_batch_norm():
            return None
        return f"{self.label()} has no batch norm: there is nothing to {bn}"

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return hashes of everything that is read: weights and data.

        Raises
        ------
        AssetError
            A file is missing.
        """
        raise NotImplementedError

"""What every source of labelled images can be asked."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from qbench.tasks.image_splits import SPLITS, LabelledImages, Split


class ImageSource(BaseModel):
    """Base of the sources of labelled images.

    Attributes
    ----------
    mirrored : bool
        Whether an image and its mirror image mean the same, so that training may flip them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mirrored: ClassVar[bool] = False

    def prepare(self) -> None:
        """Bring the images to this machine where they are not; nothing to do for most.

        Raises
        ------
        AssetError
            They cannot be had; the message names the command that brings them.
        """

    def needs_hub(self) -> bool:
        """Return whether the images come from a repository."""
        return False

    def title(self) -> str:
        """Return what tables call the images: a name, the folder's or the repository's."""
        return str(getattr(self, "source", type(self).__name__))

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of each split.

        Raises
        ------
        AssetError
            They are not on this machine.
        """
        return {f"images/{split}": self.load(split).sha256() for split in SPLITS}

    def load(self, split: Split) -> LabelledImages:
        """Return the images of a split, in a fixed order.

        Raises
        ------
        AssetError
            They are not on this machine, or are not what was pinned.
        """
        raise NotImplementedError

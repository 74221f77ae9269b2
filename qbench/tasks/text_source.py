"""What every source of text answers, and how its documents become splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from qbench.errors import AssetError
from qbench.tasks import assets
from qbench.tasks.corpus import Document, Split, split_documents


class AnyText(BaseModel):
    """Base of the sources: three splits of documents, and the evaluation text as one piece."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def prepare(self) -> None:
        """Bring the text into the cache where it is missing; nothing to do where it is read from its own place."""

    def needs_hub(self) -> bool:
        """Return whether the text comes from a repository."""
        return False

    def fingerprint(self) -> dict[str, str]:
        """Return hashes of everything that is read."""
        raise NotImplementedError

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split.

        Raises
        ------
        AssetError
            The text is not to be had, or has too few documents.
        """
        raise NotImplementedError

    def joined(self) -> str:
        """Return the evaluation text in one piece, as the evaluation of GPTQ joins it: rows in order, empty ones too.

        Where the source has no official evaluation split, its rows are the documents of the evaluation split.
        """
        return "\n\n".join(document.text for document in self.documents("evaluation"))

    def most_blocks(self) -> int | None:
        """Return how many blocks of the joined text are read at most, whatever a model asks for; None for no limit."""
        return None

    def evaluation_files(self) -> list[Path]:
        """Return the files that hold evaluation text and nothing else."""
        return []


def distinct_splits(documents: list[Document], place: str) -> dict[Split, list[Document]]:
    """Split documents that have no official split; of equal texts one is kept.

    Raises
    ------
    AssetError
        A split is left empty.
    """
    # A text that is there twice could be calibrated on under one name and evaluated under the other.
    splits = split_documents(_distinct(documents))
    _require_all(splits, place)
    return splits


def train_splits(train: list[Document], place: str) -> dict[Split, list[Document]]:
    """Split the documents of an official train split in two, ``train`` and ``calibration``; of equal texts one is kept.

    Raises
    ------
    AssetError
        A split is left empty.
    """
    parts = split_documents(_distinct(train))
    splits: dict[Split, list[Document]] = {
        "train": [*parts["train"], *parts["evaluation"]],
        "calibration": parts["calibration"],
    }
    _require_all(splits, place)
    return splits


def documents_sha256(documents: Sequence[Document]) -> str:
    """Return the hash of the documents' names and texts, in order."""
    return assets.sha256_text("".join(f"{doc.domain}\x1f{doc.name}\x1f{doc.text}\x1e" for doc in documents))


def _distinct(documents: list[Document]) -> list[Document]:
    return list({document.text.strip(): document for document in reversed(documents)}.values())[::-1]


def _require_all(splits: dict[Split, list[Document]], place: str) -> None:
    empty = [name for name, chosen in splits.items() if not chosen]
    if empty:
        raise AssetError(f"text {place} has too few different documents: nothing is left for {', '.join(empty)}")

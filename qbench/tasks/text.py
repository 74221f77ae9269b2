"""Where a language task's text comes from: three splits of documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from qbench.errors import AssetError
from qbench.tasks import assets, corpus
from qbench.tasks.corpus import Document, Split, split_documents
from qbench.tasks.evaluation import announce


def _full_commit(value: str) -> str:
    if not (len(value) == 40 and set(value) <= set("0123456789abcdef")):
        raise ValueError(f"{value!r} is not a full commit hash (40 hexadecimal digits): a branch or tag can move")
    return value


Commit = Annotated[str, AfterValidator(_full_commit)]


class ThreeTexts(BaseModel):
    """The embedded corpus: Wikipedia articles, the King James Bible, Shakespeare."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["three_texts"] = "three_texts"

    def prepare(self) -> None:
        """Bring the splits into the cache where they are not.

        Raises
        ------
        AssetError
            They are not in the cache and cannot be fetched; the message names the command that brings them.
        """
        if all(corpus.split_path(split).exists() for split in corpus.SPLITS):
            corpus.build()  # verifies them
            return
        for name in corpus.SOURCES:
            assets.fetch(name)
        corpus.build()

    def fingerprint(self) -> dict[str, str]:
        """Return the pinned hash of each split."""
        return {f"text/{split}": digest for split, digest in corpus.PINNED.items()}

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split; see `corpus.load`."""
        return corpus.load(split)

    def evaluation_files(self) -> list[Path]:
        """Return the files that hold evaluation text and nothing else."""
        return [corpus.split_path("evaluation")]


class TextFolder(BaseModel):
    """A local folder of ``*.txt`` (a document each) and ``*.jsonl`` files (a ``text`` field a line), split by document.

    Attributes
    ----------
    folder : Path
        Inside the suite's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path

    def prepare(self) -> None:
        """Do nothing: the folder is where it is."""

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of each split's documents."""
        return {f"text/{split}": documents_sha256(self.documents(split)) for split in corpus.SPLITS}

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split.

        Raises
        ------
        AssetError
            The folder is missing, or has too few documents to fill the three splits.
        """
        announce(split, f"text folder {self.folder.name}")
        if not self.folder.is_dir():
            raise AssetError(f"text folder {self.folder} does not exist")
        found: list[Document] = []
        for file in sorted(self.folder.glob("*.txt")):
            found.append(Document(self.folder.name, file.name, _read(file)))
        for file in sorted(self.folder.glob("*.jsonl")):
            for number, line in enumerate(_read(file).split("\n"), start=1):
                if line.strip():
                    found.append(Document(self.folder.name, f"{file.name}:{number}", _text_of(line, file, number)))
        return _splits(found, str(self.folder))[split]

    def evaluation_files(self) -> list[Path]:
        """Return nothing: all three splits are in the same files."""
        return []


class TextRepository(BaseModel):
    """A data set of a Hugging Face repository, read with `datasets`; its own rows are the documents, split by document.

    Attributes
    ----------
    repo, revision : str
        The repository, and the full commit hash in it.
    config : str or None
        The data set's configuration.
    split, column : str
        Which rows, and which column holds the text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str
    revision: Commit
    config: str | None = None
    split: str = "train"
    column: str = "text"

    def prepare(self) -> None:
        """Do nothing: `datasets` keeps its own cache."""

    def fingerprint(self) -> dict[str, str]:
        """Return the commit and what is read of it."""
        return {"text": f"{self.repo}@{self.revision}/{self.config or ''}/{self.split}/{self.column}"}

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split.

        Raises
        ------
        AssetError
            The data set cannot be had: no network and not in the cache, or no such revision, split or column.
        """
        from datasets import load_dataset

        announce(split, f"text {self.repo}")
        try:
            rows = load_dataset(self.repo, self.config, revision=self.revision, split=self.split)
            texts = [str(text) for text in rows[self.column]]
        except Exception as error:  # `datasets` raises many kinds; each means that the text is not to be had
            reason = str(error).split("\n")[0]
            raise AssetError(f"text {self.repo}@{self.revision[:12]} cannot be loaded: {reason}") from error
        found = [Document(self.repo, f"{self.split}:{index}", text) for index, text in enumerate(texts) if text.strip()]
        return _splits(found, self.repo)[split]

    def evaluation_files(self) -> list[Path]:
        """Return nothing: all three splits are in the same files."""
        return []


TextSource = ThreeTexts | TextFolder | TextRepository


def _parse(value: Any) -> Any:
    if isinstance(value, TextSource):
        return value
    if value in ("three_texts", {"source": "three_texts"}):
        return ThreeTexts()
    if isinstance(value, dict) and "folder" in value:
        return TextFolder(**value)
    if isinstance(value, dict) and "repo" in value:
        return TextRepository(**value)
    raise ValueError(
        f"{value!r} is not a text source (allowed: three_texts, {{folder: PATH}}, {{repo: NAME, revision: COMMIT}})"
    )


def _dump(value: TextSource) -> Any:
    return "three_texts" if isinstance(value, ThreeTexts) else value.model_dump()


TextField = Annotated[TextSource, BeforeValidator(_parse), PlainSerializer(_dump)]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AssetError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from error


def _text_of(line: str, file: Path, number: int) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{file}:{number}: not a JSON object with a 'text' field") from error


def _splits(documents: list[Document], place: str) -> dict[Split, list[Document]]:
    # A text that is there twice could be calibrated on under one name and evaluated under the other.
    distinct = list({document.text.strip(): document for document in reversed(documents)}.values())[::-1]
    splits = split_documents(distinct)
    empty = [name for name, chosen in splits.items() if not chosen]
    if empty:
        raise AssetError(f"text {place} has too few different documents: nothing is left for {', '.join(empty)}")
    return splits


def documents_sha256(documents: list[Document]) -> str:
    """Return the hash of the documents' names and texts, in order."""
    return assets.sha256_text("".join(f"{doc.domain}\x1f{doc.name}\x1f{doc.text}\x1e" for doc in documents))

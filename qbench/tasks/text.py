"""Where a language task's text comes from: three splits of documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from qbench.errors import AssetError
from qbench.tasks import assets, corpus
from qbench.tasks.corpus import Document, Split
from qbench.tasks.evaluation import announce
from qbench.tasks.text_files import TextParquet
from qbench.tasks.text_sets import SETS, NamedText
from qbench.tasks.text_source import AnyText, distinct_splits, documents_sha256, train_splits


def _full_commit(value: str) -> str:
    if not (len(value) == 40 and set(value) <= set("0123456789abcdef")):
        raise ValueError(f"{value!r} is not a full commit hash (40 hexadecimal digits): a branch or tag can move")
    return value


Domain = Literal["enwiki_2016", "bible_kjv", "shakespeare"]
Commit = Annotated[str, AfterValidator(_full_commit)]


class ThreeTexts(AnyText):
    """The embedded corpus: Wikipedia articles, the King James Bible, Shakespeare.

    Attributes
    ----------
    source : str
        ``three_texts``.
    domains : tuple of str
        Which of the three; all where none is named. The splits stay what they are, less the others' documents.
    """

    source: Literal["three_texts"] = "three_texts"
    domains: Annotated[tuple[Domain, ...], Field(max_length=3)] = ()

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
        found = corpus.load(split)
        return [document for document in found if document.domain in self.domains] if self.domains else found

    def evaluation_files(self) -> list[Path]:
        """Return the files that hold evaluation text and nothing else."""
        return [corpus.split_path("evaluation")]


class TextFolder(AnyText):
    """A local folder of ``*.txt`` (a document each) and ``*.jsonl`` files (a ``text`` field a line), split by document.

    Attributes
    ----------
    folder : Path
        Inside the suite's folder.
    """

    folder: Path

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
        return distinct_splits(found, str(self.folder))[split]


class TextRepository(AnyText):
    """A data set of a Hugging Face repository, read with `datasets`; its own rows are the documents, split by document.

    Attributes
    ----------
    repo, revision : str
        The repository, and the full commit hash in it.
    config : str or None
        The data set's configuration.
    split, column : str
        Which rows, and which column holds the text.
    evaluation_split : str or None
        The official split that is evaluated on; the rows of `split` are trained on and calibrated on then.
    """

    repo: str
    revision: Commit
    config: str | None = None
    split: str = "train"
    column: str = "text"
    evaluation_split: str | None = None

    def needs_hub(self) -> bool:
        """Return True."""
        return True

    def fingerprint(self) -> dict[str, str]:
        """Return the commit and what is read of it."""
        read = f"{self.repo}@{self.revision}/{self.config or ''}/{self.split}/{self.column}"
        return {"text": read if self.evaluation_split is None else f"{read}/{self.evaluation_split}"}

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split.

        Raises
        ------
        AssetError
            The data set cannot be had: no network and not in the cache, or no such revision, split or column.
        """
        announce(split, f"text {self.repo}")
        own = self.split if split != "evaluation" or self.evaluation_split is None else self.evaluation_split
        found = [
            Document(self.repo, f"{own}:{index}", text) for index, text in enumerate(self._rows(own)) if text.strip()
        ]
        if self.evaluation_split is None:
            return distinct_splits(found, self.repo)[split]
        return found if split == "evaluation" else train_splits(found, self.repo)[split]

    def joined(self) -> str:
        """Return the evaluation text in one piece; see `AnyText.joined`."""
        if self.evaluation_split is None:
            return super().joined()
        announce("evaluation", f"text {self.repo}")
        return "\n\n".join(self._rows(self.evaluation_split))

    def _rows(self, split: str) -> list[str]:
        from datasets import load_dataset

        try:
            rows = load_dataset(self.repo, self.config, revision=self.revision, split=split)
            return [str(text) for text in rows[self.column]]
        except Exception as error:  # `datasets` raises many kinds; each means that the text is not to be had
            reason = str(error).split("\n")[0]
            raise AssetError(f"text {self.repo}@{self.revision[:12]} cannot be loaded: {reason}") from error


SingleText = ThreeTexts | TextFolder | TextRepository | TextParquet | NamedText

_WIKIPEDIA = ThreeTexts(domains=("enwiki_2016",))
_BY_NAME: dict[str, SingleText] = {
    "three_texts": ThreeTexts(),
    "wikipedia": _WIKIPEDIA,
    **{name: NamedText(set=name) for name in SETS},
}
_BY_KEY: dict[str, type[SingleText]] = {
    "set": NamedText,  # before `folder`, which it can have too
    "source": ThreeTexts,
    "folder": TextFolder,
    "repo": TextRepository,
    "parquet": TextParquet,
}


def _parse_single(value: Any) -> Any:
    if isinstance(value, SingleText):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]
    for key, kind in _BY_KEY.items():
        if isinstance(value, dict) and key in value:
            return kind(**value)
    raise ValueError(
        f"{value!r} is not a text source (allowed: {', '.join(_BY_NAME)}, {{folder: PATH}}, {{parquet: PATH}}, "
        "{repo: NAME, revision: COMMIT}, {set: NAME, folder: PATH}, {calibration: SOURCE, evaluation: SOURCE})"
    )


def _dump(value: AnyText) -> Any:
    names = [name for name, source in _BY_NAME.items() if source == value]
    return names[0] if names else value.model_dump()


SingleField = Annotated[SingleText, BeforeValidator(_parse_single), PlainSerializer(_dump)]


class TextPair(AnyText):
    """One source to calibrate and train on, another to evaluate on: papers calibrate on C4 and measure on WikiText-2.

    Attributes
    ----------
    calibration : text source
        Its train and calibration splits are read, and its evaluation split is not.
    evaluation : text source
        Its evaluation split is read, and nothing else.
    """

    calibration: SingleField
    evaluation: SingleField

    def prepare(self) -> None:
        """Bring both into the cache where they are missing."""
        self.calibration.prepare()
        self.evaluation.prepare()

    def needs_hub(self) -> bool:
        """Return whether one of them comes from a repository."""
        return self.calibration.needs_hub() or self.evaluation.needs_hub()

    def fingerprint(self) -> dict[str, str]:
        """Return the hashes of both."""
        parts = {"calibration": self.calibration, "evaluation": self.evaluation}
        return {f"{role}/{name}": sha for role, part in parts.items() for name, sha in part.fingerprint().items()}

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split, of the source that is for it."""
        return (self.evaluation if split == "evaluation" else self.calibration).documents(split)

    def joined(self) -> str:
        """Return the evaluation text in one piece; see `AnyText.joined`."""
        return self.evaluation.joined()

    def most_blocks(self) -> int | None:
        """Return how many blocks of the joined text are read at most; see `AnyText.most_blocks`."""
        return self.evaluation.most_blocks()

    def evaluation_files(self) -> list[Path]:
        """Return the files that hold evaluation text and nothing else."""
        return self.evaluation.evaluation_files()


TextSource = SingleText | TextPair


def _parse(value: Any) -> Any:
    if isinstance(value, TextPair):
        return value
    if isinstance(value, dict) and {"calibration", "evaluation"} & value.keys():
        return TextPair(**value)
    return _parse_single(value)


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

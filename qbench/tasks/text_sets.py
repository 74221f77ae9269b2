"""Texts that the papers on quantization measure on, by name: their official splits, at a pinned commit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Literal, get_args

from qbench.errors import AssetError
from qbench.tasks.corpus import Document, Split
from qbench.tasks.evaluation import announce
from qbench.tasks.text_files import files_sha256, read_rows
from qbench.tasks.text_source import AnyText, train_splits

SetName = Literal["wikitext2", "c4"]
SETS: tuple[SetName, ...] = get_args(SetName)

# A heading of the first level, which begins an article; `= = Deeper = =` does not.
_TITLE = re.compile(r"^= (?!=)(.+?)(?<!=) =$")


@dataclass(frozen=True)
class _Set:
    repo: str
    revision: str
    config: str | None
    data_files: dict[str, str] | None
    evaluation_split: str
    most_train_rows: int | None
    most_evaluation_rows: int | None
    joint: str
    most_blocks: int | None
    in_articles: bool


_KNOWN: dict[str, _Set] = {
    "wikitext2": _Set(
        repo="Salesforce/wikitext",
        revision="b08601e04326c79dfdd32d625aee71d232d685c3",
        config="wikitext-2-raw-v1",
        data_files=None,
        evaluation_split="test",
        most_train_rows=None,
        most_evaluation_rows=None,
        joint="\n\n",
        most_blocks=None,
        in_articles=True,
    ),
    "c4": _Set(
        repo="allenai/c4",
        revision="1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
        config=None,
        data_files={
            "train": "en/c4-train.00000-of-01024.json.gz",
            "validation": "en/c4-validation.00000-of-00008.json.gz",
        },
        evaluation_split="validation",
        # The file has 356 317 documents: far more than a calibration draws from, and minutes to encode.
        most_train_rows=20_000,
        # GPTQ's own (`c4_new`): the first 1100 documents, joined by a space, and of these 256 blocks.
        most_evaluation_rows=1100,
        joint=" ",
        most_blocks=256,
        in_articles=False,
    ),
}


class NamedText(AnyText):
    """WikiText-2 or C4: the official train split is trained on and calibrated on, test or validation evaluated on.

    Attributes
    ----------
    set : str
        ``wikitext2`` (documents are its articles, evaluation is its test split) or ``c4`` (the first 20 000 documents
        of the first train file, and the first 1100 of the first validation file).
    folder : Path or None
        Where its files lie: ``*train*`` and ``*test*`` or ``*validation*``, ending in ``.parquet`` or ``.json.gz``,
        inside the suite's folder. Without it, they come from the Hugging Face repository at the pinned commit.
    """

    set: SetName
    folder: Path | None = None

    @property
    def _known(self) -> _Set:
        return _KNOWN[self.set]

    def needs_hub(self) -> bool:
        """Return whether no folder is given."""
        return self.folder is None

    def fingerprint(self) -> dict[str, str]:
        """Return the hashes of the files in the folder, or the repository's commit and what is read of it."""
        if self.folder is not None:
            return files_sha256([*self._files("train"), *self._files(self._known.evaluation_split)])
        known = self._known
        return {"text": f"{known.repo}@{known.revision}/{known.config or known.data_files}"}

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split.

        Raises
        ------
        AssetError
            The files or the repository cannot be had, or the text is too short.
        """
        announce(split, f"text {self.set}")
        own = self._known.evaluation_split if split == "evaluation" else "train"
        rows = self._rows(own)
        if self._known.in_articles:
            found = [Document(self.set, name, text) for name, text in articles(rows)]
        else:
            found = [Document(self.set, f"{own}:{index}", text) for index, text in enumerate(rows) if text.strip()]
        if split != "evaluation":
            return train_splits(found, self.set)[split]
        if not found:
            raise AssetError(f"text {self.set}: the {own} split holds no document")
        return found

    def joined(self) -> str:
        """Return the evaluation text in one piece, as GPTQ's evaluation joins it."""
        announce("evaluation", f"text {self.set}")
        return self._known.joint.join(self._rows(self._known.evaluation_split))

    def most_blocks(self) -> int | None:
        """Return how many blocks GPTQ's evaluation reads of the joined text at most; None for all."""
        return self._known.most_blocks

    def evaluation_files(self) -> list[Path]:
        """Return the files of the evaluation split in the folder."""
        return [] if self.folder is None else self._files(self._known.evaluation_split)

    def _rows(self, split: str) -> list[str]:
        most = self._known.most_train_rows if split == "train" else self._known.most_evaluation_rows
        if self.folder is not None:
            return list(islice(chain.from_iterable(read_rows(file, "text", most) for file in self._files(split)), most))
        from datasets import load_dataset

        known = self._known
        try:
            rows = load_dataset(
                known.repo, known.config, data_files=known.data_files, revision=known.revision, split=split
            )
            return [str(text) for text in rows[:most]["text"]]
        except Exception as error:  # `datasets` raises many kinds; each means that the text is not to be had
            reason = str(error).split("\n")[0]
            raise AssetError(
                f"text {self.set} ({known.repo}@{known.revision[:12]}) cannot be loaded: {reason}"
            ) from error

    def _files(self, split: str) -> list[Path]:
        assert self.folder is not None
        if not self.folder.is_dir():
            raise AssetError(f"text folder {self.folder} does not exist")
        found = sorted(file for file in self.folder.glob(f"*{split}*") if file.name.endswith((".parquet", ".json.gz")))
        if not found:
            raise AssetError(
                f"text folder {self.folder} holds no file of the {split} split of {self.set} "
                f"(allowed: *{split}*.parquet, *{split}*.json.gz)"
            )
        return found


def articles(rows: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the articles of WikiText: a name that says where it begins, and its rows end to end.

    Parameters
    ----------
    rows : list of str
        As the data set has them: a line each, with its line break. A line ``= Title =`` begins an article; what stands
        before the first is no article.
    """
    starts = [index for index, row in enumerate(rows) if _TITLE.match(row.strip())]
    for start, end in pairwise([*starts, len(rows)]):
        title = rows[start].strip(" =\n")
        yield f"{start}:{title}", "".join(rows[start:end])

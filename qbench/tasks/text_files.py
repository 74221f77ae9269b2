"""Text in files of rows: parquet, and JSON lines that are compressed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from qbench import atomic
from qbench.errors import AssetError, nearest
from qbench.tasks.corpus import Document, Split
from qbench.tasks.evaluation import announce
from qbench.tasks.text_source import AnyText, distinct_splits, train_splits

_Files = Annotated[
    tuple[Path, ...],
    BeforeValidator(
        lambda value: value if isinstance(value, list | tuple) else (value,),
        json_schema_input_type=Path | tuple[Path, ...],
    ),
]


class TextParquet(AnyText):
    """Local parquet files; their rows are the documents.

    Attributes
    ----------
    parquet : tuple of Path
        One file or more, inside the suite's folder.
    column : str
        Which column holds the text.
    evaluation_parquet : tuple of Path
        The official evaluation split; the rows of `parquet` are trained on and calibrated on then. Without it, these
        are split by document into all three.
    """

    parquet: Annotated[_Files, Field(min_length=1)]
    column: str = "text"
    evaluation_parquet: _Files = ()

    def fingerprint(self) -> dict[str, str]:
        """Return the hashes of the files, which must be parquet with such a column and rows."""
        found = files_sha256([*self.parquet, *self.evaluation_parquet])
        for file in (*self.parquet, *self.evaluation_parquet):
            if not file.name.endswith(".json.gz") and next(iter(_parquet(file, self.column)), None) is None:
                raise AssetError(f"{file} holds no text in its column {self.column!r}")
        return found

    def documents(self, split: Split) -> list[Document]:
        """Return the documents of a split.

        Raises
        ------
        AssetError
            A file is missing, is no parquet or has no such column; or the rows are too few.
        """
        place = self.parquet[0].name
        announce(split, f"text {place}")
        official = split == "evaluation" and self.evaluation_parquet
        files = self.evaluation_parquet if official else self.parquet
        # Not by the files' places: what they are called and hold is what they are.
        found = [
            Document(self.parquet[0].stem, f"{file.name}:{row}", text)
            for file in files
            for row, text in enumerate(read_rows(file, self.column))
            if text.strip()
        ]
        if official:
            return found
        return (train_splits if self.evaluation_parquet else distinct_splits)(found, place)[split]

    def joined(self) -> str:
        """Return the evaluation text in one piece; see `AnyText.joined`."""
        if not self.evaluation_parquet:
            return super().joined()
        announce("evaluation", f"text {self.parquet[0].name}")
        return "\n\n".join(text for file in self.evaluation_parquet for text in read_rows(file, self.column))

    def evaluation_files(self) -> list[Path]:
        """Return the files of the official evaluation split."""
        return list(self.evaluation_parquet)


def read_rows(file: Path, column: str, most: int | None = None) -> list[str]:
    """Return the texts of a file's rows, in order.

    Parameters
    ----------
    file : Path
        A parquet file, or one of JSON lines that ends in ``.json.gz``.
    column : str
        The column, or the key in each line.
    most : int or None
        Read no more rows than that.

    Raises
    ------
    AssetError
        The file is missing, cannot be read, or has no such column of text.
    """
    if not file.is_file():
        raise AssetError(f"text file {file} does not exist")
    rows = _lines(file, column) if file.name.endswith(".json.gz") else _parquet(file, column)
    found = list(islice(rows, most))
    if not all(isinstance(text, str) for text in found):
        raise AssetError(f"{file}: the column {column!r} holds more than text")
    return found


def files_sha256(files: Sequence[Path]) -> dict[str, str]:
    """Return the hash of each file by its name.

    Raises
    ------
    AssetError
        One is missing.
    """
    for file in files:
        if not file.is_file():
            raise AssetError(f"text file {file} does not exist")
    return {f"text/{index}/{file.name}": atomic.sha256_file(file) for index, file in enumerate(files)}


def _parquet(file: Path, column: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if column not in names:
                raise AssetError(f"{file}: no column {column!r}{nearest(column, names)}")
            for batch in opened.iter_batches(columns=[column]):
                yield from batch.column(0).to_pylist()
    except pa.ArrowInvalid as error:
        raise AssetError(f"{file} is no parquet file: {str(error).splitlines()[0]}") from error


def _lines(file: Path, column: str) -> Iterator[Any]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as opened:
            for number, line in enumerate(opened, start=1):
                try:
                    yield json.loads(line)[column]
                except (ValueError, KeyError, TypeError) as error:
                    raise AssetError(f"{file}:{number}: not a JSON object with a {column!r} field") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise AssetError(f"{file} is no gzip file of JSON lines in UTF-8: {error}") from error

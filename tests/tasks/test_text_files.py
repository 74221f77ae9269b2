"""Rows of parquet files and of compressed JSON lines as documents."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qbench.errors import AssetError
from qbench.tasks import corpus
from qbench.tasks.text_files import TextParquet, read_rows


def write(file: Path, rows: Sequence[object], column: str = "text") -> Path:
    pq.write_table(pa.table({"id": list(range(len(rows))), column: list(rows)}), file)
    return file


def texts(name: str, count: int = 40) -> list[str]:
    return [f"{name} {index}. " * 40 for index in range(count)]


def test_the_rows_are_split_by_document(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.parquet", [*texts("a"), "  "]), write(tmp_path / "b.parquet", texts("b"))
    source = TextParquet(parquet=(first, second))
    splits = {split: source.documents(split) for split in corpus.SPLITS}
    assert all(splits.values())
    found = [document.text for documents in splits.values() for document in documents]
    assert sorted(found) == sorted(texts("a") + texts("b"))
    assert source.evaluation_files() == []
    assert not source.needs_hub()


def test_an_official_evaluation_split_stays_as_it_is(tmp_path: Path) -> None:
    train, test = write(tmp_path / "t.parquet", texts("a")), write(tmp_path / "e.parquet", ["x", "", "y"])
    source = TextParquet(parquet=train, evaluation_parquet=[test])
    assert [(document.name, document.text) for document in source.documents("evaluation")] == [
        ("e.parquet:0", "x"),
        ("e.parquet:2", "y"),
    ]
    rest = [document.text for split in ("train", "calibration") for document in source.documents(split)]
    assert sorted(rest) == sorted(texts("a"))
    assert source.joined() == "x\n\n\n\ny"
    assert source.evaluation_files() == [test]


def test_files_are_known_by_their_bytes_and_names(tmp_path: Path) -> None:
    source = TextParquet(parquet=write(tmp_path / "a.parquet", texts("a")))
    before = source.fingerprint()
    (tmp_path / "elsewhere").mkdir()
    moved = TextParquet(parquet=write(tmp_path / "elsewhere" / "a.parquet", texts("a")))
    assert moved.fingerprint() == before
    assert moved.documents("train") == source.documents("train")
    write(tmp_path / "a.parquet", texts("other"))
    assert source.fingerprint() != before


def test_compressed_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.json.gz"
    file.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in "abc").encode()))
    assert read_rows(file, "text") == ["a", "b", "c"]
    assert read_rows(file, "text", 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", None, "text file {} does not exist"),
        ("a.parquet", b"no parquet at all", "{} is no parquet file: "),
        ("a.json.gz", b"no gzip", "{} is no gzip file of JSON lines in UTF-8: "),
        ("a.json.gz", gzip.compress(b'{"text": "a"}\n{"body": 1}\n'), "{}:2: not a JSON object with a 'text' field"),
        ("a.json.gz", gzip.compress(b'{"text": 5}\n'), "{}: the column 'text' holds more than text"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AssetError) as caught:
        read_rows(file, "text")
    assert str(caught.value).startswith(message.format(file))
    assert len(str(caught.value).splitlines()) == 1


def test_a_column_that_is_not_there_or_holds_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", ["x", "y"])
    with pytest.raises(AssetError, match=r"a.parquet: no column 'texts': did you mean 'text'\? \(allowed: id, text\)$"):
        read_rows(file, "texts")
    with pytest.raises(AssetError, match=r"a.parquet: the column 'id' holds more than text$"):
        read_rows(file, "id")

"""WikiText-2 and C4 by name, read from files that look as the official ones do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from qbench.errors import AssetError
from qbench.tasks.text_sets import NamedText, articles


def article(number: int) -> list[str]:
    """Return rows as wikitext-2-raw-v1 has them."""
    return [
        "",
        f" = Article {number} = \n",
        "",
        f" The article {number} says a thing , and then {number} @-@ times another . \n" * 5,
        "",
        " = = A section of it = = \n",
        "",
        " = = = Deeper = = = \n",
        f" More of {number} , where x = {number} = y . \n",
        "",
    ]


def rows_of(numbers: range) -> list[str]:
    return [row for number in numbers for row in article(number)]


@pytest.fixture
def wikitext(tmp_path: Path) -> Path:
    """Return a folder with a train split in two files, a test and a validation split."""
    parts = {"train-00000-of-00002": range(40), "train-00001-of-00002": range(40, 60)}
    for name, numbers in {**parts, "test-00000-of-00001": range(60, 66), "validation-0": range(70, 73)}.items():
        pq.write_table(pa.table({"text": rows_of(numbers)}), tmp_path / f"{name}.parquet")
    return tmp_path


def test_articles_begin_at_headings_of_the_first_level() -> None:
    rows = ["", *rows_of(range(3))]
    found = list(articles(rows))
    assert [name.partition(":")[2] for name, _ in found] == ["Article 0", "Article 1", "Article 2"]
    assert "".join(text for _, text in found) == "".join(rows)
    assert all(text.startswith(f" = Article {number} = \n") for number, (_, text) in enumerate(found))
    assert list(articles(["no heading"])) == []


def test_wikitext_has_its_official_splits(wikitext: Path) -> None:
    source = NamedText(set="wikitext2", folder=wikitext)
    evaluation = source.documents("evaluation")
    assert [document.name.partition(":")[2] for document in evaluation] == [f"Article {n}" for n in range(60, 66)]
    calibration, train = source.documents("calibration"), source.documents("train")
    assert calibration and len(train) > len(calibration)
    names = sorted(document.name.partition(":")[2] for document in [*train, *calibration])
    assert names == sorted(f"Article {number}" for number in range(60))
    assert source.evaluation_files() == [wikitext / "test-00000-of-00001.parquet"]
    assert source.most_blocks() is None


def test_wikitext_is_joined_by_rows_and_the_empty_ones_count(wikitext: Path) -> None:
    joined = NamedText(set="wikitext2", folder=wikitext).joined()
    assert joined == "\n\n".join(rows_of(range(60, 66)))
    assert joined.startswith("\n\n = Article 60 = \n\n\n\n\n")


def test_c4_is_the_first_documents_of_its_files(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("validation", 1105)):
        lines = "".join(json.dumps({"text": f"{split} {index}. " * 9, "url": "u"}) + "\n" for index in range(count))
        (tmp_path / f"c4-{split}.00000-of-01024.json.gz").write_bytes(gzip.compress(lines.encode()))
    source = NamedText(set="c4", folder=tmp_path)
    evaluation = source.documents("evaluation")
    assert len(evaluation) == 1100 and evaluation[-1].text == "validation 1099. " * 9
    assert source.joined() == " ".join(document.text for document in evaluation)
    assert source.most_blocks() == 256
    assert len(source.documents("train")) + len(source.documents("calibration")) == 30


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        (
            "wikitext2",
            ("Salesforce/wikitext", "wikitext-2-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3", "test", None),
        ),
        (
            "c4",
            (
                "allenai/c4",
                None,
                "1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
                "validation",
                {
                    "train": "en/c4-train.00000-of-01024.json.gz",
                    "validation": "en/c4-validation.00000-of-00008.json.gz",
                },
            ),
        ),
    ],
)
def test_without_a_folder_the_repository_is_read_at_its_commit(
    monkeypatch: pytest.MonkeyPatch, name: Any, asked: tuple[Any, ...]
) -> None:
    import datasets

    given: list[Any] = []

    def load(repo: str, config: str | None, **options: Any) -> datasets.Dataset:
        given.append((repo, config, options["revision"], options["split"], options["data_files"]))
        return datasets.Dataset.from_list([{"text": row} for row in article(1)])

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = NamedText(set=name)
    assert source.needs_hub()
    assert source.evaluation_files() == []
    assert source.documents("evaluation")
    assert given == [asked]
    assert asked[2] in source.fingerprint()["text"]


def test_a_set_that_cannot_be_reached_is_one_line() -> None:
    with pytest.raises(AssetError) as caught:
        NamedText(set="wikitext2").documents("train")
    assert str(caught.value).startswith("text wikitext2 (Salesforce/wikitext@b08601e04326) cannot be loaded: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_is_known_by_its_files(wikitext: Path) -> None:
    source = NamedText(set="wikitext2", folder=wikitext)
    before = source.fingerprint()
    assert len(before) == 3  # what is not read does not count
    (wikitext / "validation-0.parquet").unlink()
    assert source.fingerprint() == before
    pq.write_table(pa.table({"text": rows_of(range(60, 67))}), wikitext / "test-00000-of-00001.parquet")
    assert source.fingerprint() != before


def test_a_folder_without_a_split(tmp_path: Path, wikitext: Path) -> None:
    (wikitext / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(AssetError, match=r"holds no file of the test split of wikitext2 \(allowed: \*test\*.parquet, "):
        NamedText(set="wikitext2", folder=wikitext).documents("evaluation")
    with pytest.raises(AssetError, match=r"text folder .*nowhere does not exist"):
        NamedText(set="wikitext2", folder=tmp_path / "nowhere").fingerprint()


def test_a_set_that_nobody_knows() -> None:
    with pytest.raises(ValidationError, match="'wikitext2' or 'c4'"):
        NamedText.model_validate({"set": "wikitext103"})

"""Where text comes from: a folder, a repository, the embedded corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from qbench.errors import AssetError
from qbench.tasks import assets, corpus
from qbench.tasks.text import TextField, TextFolder, TextRepository, ThreeTexts

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARSE = TypeAdapter(TextField)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 20 texts and two files of 10 lines each."""
    place = tmp_path / "texts"
    place.mkdir()
    for index in range(20):
        (place / f"t{index:02d}.txt").write_text(f"Text {index:02d}. " * 50, encoding="utf-8")
    for name in "ab":
        lines = [json.dumps({"text": f"Line {index} of {name}. " * 50, "id": index}) for index in range(10)]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    (place / "notes.md").write_text("not read")
    return place


def test_a_folder_is_split_by_document(folder: Path) -> None:
    source = TextFolder(folder=folder)
    splits = {split: source.documents(split) for split in corpus.SPLITS}
    names = [document.name for documents in splits.values() for document in documents]
    assert sorted(names) == sorted(
        [f"t{index:02d}.txt" for index in range(20)]
        + [f"{name}.jsonl:{line}" for name in "ab" for line in range(1, 11)]
    )
    assert all(splits.values())
    assert {document.domain for documents in splits.values() for document in documents} == {"texts"}


def test_a_folder_is_known_by_its_documents_and_not_by_where_it_lies(folder: Path, tmp_path: Path) -> None:
    before = TextFolder(folder=folder).fingerprint()
    assert set(before) == {f"text/{split}" for split in corpus.SPLITS}
    moved = tmp_path / "elsewhere" / "texts"
    moved.parent.mkdir()
    folder.rename(moved)
    assert TextFolder(folder=moved).fingerprint() == before
    (moved / "t07.txt").write_text("Another text. " * 50)
    assert TextFolder(folder=moved).fingerprint() != before


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(AssetError) as caught:
        TextFolder(folder=tmp_path / "nowhere").documents("train")
    assert str(caught.value) == f"text folder {tmp_path / 'nowhere'} does not exist"


def test_too_few_documents(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("One text only.")
    with pytest.raises(AssetError) as caught:
        TextFolder(folder=tmp_path).documents("train")
    assert (
        str(caught.value)
        == f"text {tmp_path} has too few different documents: nothing is left for calibration, evaluation"
    )


@pytest.mark.parametrize("line", ["{'text': 1}", '["text"]', '{"body": "x"}', '"text"', "5"])
def test_a_line_that_is_no_document(folder: Path, line: str) -> None:
    with (folder / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(AssetError) as caught:
        TextFolder(folder=folder).documents("train")
    assert str(caught.value) == f"{folder / 'a.jsonl'}:12: not a JSON object with a 'text' field"


@pytest.mark.parametrize("name", ["t03.txt", "a.jsonl"])
def test_a_file_that_is_not_utf8(folder: Path, name: str) -> None:
    (folder / name).write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(AssetError, match=rf"^{folder / name} is not UTF-8"):
        TextFolder(folder=folder).documents("train")


def test_a_repository_that_cannot_be_reached_is_one_line() -> None:
    source = TextRepository(repo="nobody/no-such-text", revision=COMMIT)
    with pytest.raises(AssetError) as caught:
        source.documents("train")
    message = str(caught.value)
    assert message.startswith("text nobody/no-such-text@0123456789ab cannot be loaded: ")
    assert len(message.splitlines()) == 1
    assert source.fingerprint() == {"text": f"nobody/no-such-text@{COMMIT}//train/text"}


def test_a_repository_is_read_with_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [{"body": f"Row {index}. " * 30} for index in range(40)] + [{"body": "  "}]
    asked: dict[str, Any] = {}

    def load(repo: str, config: str | None, **options: Any) -> datasets.Dataset:
        asked.update(repo=repo, config=config, **options)
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = TextRepository(repo="some/text", revision=COMMIT, config="en", split="test", column="body")
    found = [document for split in corpus.SPLITS for document in source.documents(split)]
    assert asked == {"repo": "some/text", "config": "en", "revision": COMMIT, "split": "test"}
    assert sorted(document.text for document in found) == sorted(row["body"] for row in rows[:40])
    missing = TextRepository(repo="some/text", revision=COMMIT, column="text")
    with pytest.raises(AssetError, match=r"^text some/text@0123456789ab cannot be loaded: "):
        missing.documents("train")


@pytest.mark.parametrize("revision", ["main", "0123456", COMMIT.upper(), ""])
def test_a_repository_needs_a_full_commit(revision: str) -> None:
    with pytest.raises(ValidationError, match="is not a full commit hash"):
        TextRepository(repo="some/text", revision=revision)


@pytest.mark.parametrize(
    "given",
    [
        "three_texts",
        "wikipedia",
        "wikitext2",
        "c4",
        {"set": "wikitext2", "folder": "data/wikitext2"},
        {"source": "three_texts", "domains": ["bible_kjv", "shakespeare"]},
        {"folder": "texts"},
        {"parquet": "rows.parquet"},
        {"parquet": ["a.parquet", "b.parquet"], "evaluation_parquet": "c.parquet", "column": "body"},
        {"repo": "some/text", "revision": COMMIT, "config": "en"},
        {"repo": "some/text", "revision": COMMIT, "evaluation_split": "test"},
    ],
)
def test_a_text_source_survives_being_written_and_read(given: Any) -> None:
    source = PARSE.validate_python(given)
    assert PARSE.validate_python(PARSE.dump_python(source, mode="json")) == source
    assert PARSE.validate_python(source) is source


def test_what_is_no_text_source() -> None:
    with pytest.raises(
        ValidationError,
        match=r"allowed: three_texts, wikipedia, wikitext2, c4, \{folder: PATH\}, \{parquet: PATH\}, \{repo: NAME, "
        r"revision: COMMIT\}, \{set: NAME, folder: PATH\}",
    ):
        PARSE.validate_python("wikitext")


@pytest.mark.parametrize("name", ["three_texts", "wikipedia", "wikitext2", "c4"])
def test_a_name_is_written_as_it_was_given(name: str) -> None:
    assert PARSE.dump_python(PARSE.validate_python(name), mode="json") == name


def test_a_domain_of_the_embedded_text_alone() -> None:
    whole, wikipedia = ThreeTexts(), PARSE.validate_python("wikipedia")
    assert wikipedia == PARSE.validate_python({"source": "three_texts", "domains": ["enwiki_2016"]})
    for split in corpus.SPLITS:
        assert wikipedia.documents(split) == [
            document for document in whole.documents(split) if document.domain == "enwiki_2016"
        ]
    assert wikipedia.fingerprint() == whole.fingerprint()
    with pytest.raises(ValidationError, match="enwiki_2016"):
        PARSE.validate_python({"source": "three_texts", "domains": ["enwiki"]})


def test_a_repository_with_an_official_evaluation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = {split: [f"{split} {index}. " * 30 for index in range(40)] for split in ("train", "validation")}
    rows["validation"][3] = ""

    def load(repo: str, config: str | None, **options: Any) -> datasets.Dataset:
        return datasets.Dataset.from_list([{"text": text} for text in rows[options["split"]]])

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = TextRepository(repo="some/text", revision=COMMIT, evaluation_split="validation")
    splits = {split: source.documents(split) for split in corpus.SPLITS}
    assert [document.text for document in splits["evaluation"]] == [text for text in rows["validation"] if text]
    assert sorted(document.text for split in ("train", "calibration") for document in splits[split]) == sorted(
        rows["train"]
    )
    assert len(splits["train"]) > len(splits["calibration"]) > 0
    assert source.joined() == "\n\n".join(rows["validation"])  # the empty row too
    assert source.fingerprint() != TextRepository(repo="some/text", revision=COMMIT).fingerprint()


def test_the_joined_text_without_an_official_split_is_that_of_the_documents(folder: Path) -> None:
    source = TextFolder(folder=folder)
    assert source.joined() == "\n\n".join(document.text for document in source.documents("evaluation"))


def test_the_embedded_text() -> None:
    assert ThreeTexts().fingerprint() == {f"text/{split}": digest for split, digest in corpus.PINNED.items()}
    assert ThreeTexts().documents("evaluation") == corpus.load("evaluation")


def test_preparing_the_embedded_text_where_it_is_there_only_verifies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "fetch", lambda name: pytest.fail(f"{name} was fetched"))
    monkeypatch.setattr(corpus, "read_documents", lambda: pytest.fail("the texts were cleaned again"))
    ThreeTexts().prepare()


def test_preparing_the_embedded_text_finds_a_file_that_was_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    for split in corpus.SPLITS:
        corpus.split_path(split).parent.mkdir(exist_ok=True)
        corpus.split_path(split).write_text("{}\n")
    with pytest.raises(AssetError, match=r"pinned is 4f6b.*: remove it and run `qbench fetch`$"):
        ThreeTexts().prepare()


def test_preparing_the_embedded_text_fetches_and_builds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    done: list[str] = []
    monkeypatch.setattr(assets, "fetch", done.append)
    monkeypatch.setattr(corpus, "build", lambda: done.append("built"))
    ThreeTexts().prepare()
    assert done == [*corpus.SOURCES, "built"]


def test_a_text_that_is_there_twice_is_in_one_split_only(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"{index:02d}.txt").write_text(f"Text number {index // 2} of a folder." * 20 + "\n" * (index % 2))
    splits = {split: TextFolder(folder=tmp_path).documents(split) for split in corpus.SPLITS}
    texts = [document.text.strip() for documents in splits.values() for document in documents]
    assert len(texts) == len(set(texts)) == 30


def test_copies_of_one_text_are_too_few(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.txt").write_text("The same text.")
    with pytest.raises(AssetError, match="has too few different documents: nothing is left for calibration"):
        TextFolder(folder=tmp_path).documents("train")


def test_two_sources_one_to_calibrate_on_and_one_to_evaluate_on(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for index in range(20):
        (other / f"o{index:02d}.txt").write_text(f"Other {index:02d}. " * 50, encoding="utf-8")
    given = {"calibration": {"folder": str(folder)}, "evaluation": {"folder": str(other)}}
    source, first, second = PARSE.validate_python(given), TextFolder(folder=folder), TextFolder(folder=other)
    for split in corpus.SPLITS:
        owner = second if split == "evaluation" else first
        assert source.documents(split) == owner.documents(split)
    assert source.joined() == second.joined()
    parts = {"calibration": first.fingerprint(), "evaluation": second.fingerprint()}
    assert source.fingerprint() == {f"{role}/{key}": sha for role, own in parts.items() for key, sha in own.items()}
    assert not source.needs_hub()
    assert PARSE.validate_python({"calibration": "wikipedia", "evaluation": "wikitext2"}).needs_hub()
    assert PARSE.dump_python(source)["evaluation"]["folder"] == other


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"calibration": "wikipedia"}, "evaluation"),
        ({"calibration": "wikipedia", "evaluation": "nowhere"}, "is not a text source"),
        ({"calibration": {"calibration": "c4", "evaluation": "c4"}, "evaluation": "c4"}, "is not a text source"),
    ],
)
def test_a_pair_needs_two_single_sources(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PARSE.validate_python(given)

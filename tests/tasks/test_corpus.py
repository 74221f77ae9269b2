"""The three texts: pinned, split by document, every domain in every split."""

from __future__ import annotations

import bz2
import json
import random
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import AssetError
from qbench.tasks import assets, corpus
from qbench.tasks.corpus import Document, split_documents
from qbench.tasks.wikitext import plain_text

domains = st.lists(
    st.lists(st.integers(1, 400), min_size=1, max_size=40), min_size=1, max_size=3
)  # the lengths of each domain's documents


def documents_of(lengths: list[list[int]]) -> list[Document]:
    return [
        Document(f"domain{domain}", f"document{index}", "x" * length)
        for domain, of_domain in enumerate(lengths)
        for index, length in enumerate(of_domain)
    ]


def chars(documents: list[Document]) -> Counter[str]:
    found: Counter[str] = Counter()
    for document in documents:
        found[document.domain] += len(document.text)
    return found


@pytest.fixture(scope="module")
def splits() -> dict[corpus.Split, list[Document]]:
    return {split: corpus.load(split) for split in corpus.SPLITS}


def test_the_cache_holds_what_is_pinned() -> None:
    assert set(corpus.PINNED) == set(corpus.SPLITS)
    for split in corpus.SPLITS:
        assert assets.sha256_text(corpus.split_path(split).read_text(encoding="utf-8")) == corpus.PINNED[split]


def test_building_what_is_there_changes_nothing() -> None:
    before = {split: corpus.split_path(split).stat() for split in corpus.SPLITS}
    assert corpus.build() == corpus.PINNED
    assert {split: corpus.split_path(split).stat() for split in corpus.SPLITS} == before


def test_no_document_is_in_two_splits(splits: dict[corpus.Split, list[Document]]) -> None:
    everything = [document for documents in splits.values() for document in documents]
    assert len({(document.domain, document.name) for document in everything}) == len(everything)
    assert len({document.text for document in everything}) == len(everything)
    assert all(document.text.strip() for document in everything)


def test_each_domain_is_in_each_split_with_its_share(splits: dict[corpus.Split, list[Document]]) -> None:
    whole = chars([document for documents in splits.values() for document in documents])
    assert set(whole) == set(corpus.SOURCES)
    for split in ("calibration", "evaluation"):
        held = chars(splits[split])
        assert set(held) == set(corpus.SOURCES)
        for domain, count in held.items():
            assert 0.05 <= count / whole[domain] <= 0.075, (split, domain)
    assert set(chars(splits["train"])) == set(corpus.SOURCES)


def test_the_pinned_split_is_what_the_rule_gives(splits: dict[corpus.Split, list[Document]]) -> None:
    everything = [document for documents in splits.values() for document in documents]
    random.Random(0).shuffle(everything)
    assert split_documents(everything) == splits


@given(domains, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order_of_its_input(lengths: list[list[int]], chance: random.Random) -> None:
    documents = documents_of(lengths)
    mixed = list(documents)
    chance.shuffle(mixed)
    assert split_documents(mixed) == split_documents(documents)


@given(domains)
def test_a_split_loses_and_doubles_nothing(lengths: list[list[int]]) -> None:
    documents = documents_of(lengths)
    splits = split_documents(documents)
    placed = [document for of_split in splits.values() for document in of_split]
    assert sorted(placed, key=lambda document: (document.domain, document.name)) == sorted(
        documents, key=lambda document: (document.domain, document.name)
    )
    whole = chars(documents)
    for split in ("calibration", "evaluation"):
        assert all(count <= 0.075 * whole[domain] for domain, count in chars(splits[split]).items())


@given(domains)
def test_a_domain_is_split_on_its_own(lengths: list[list[int]]) -> None:
    documents = documents_of(lengths)
    together = split_documents(documents)
    alone = split_documents([document for document in documents if document.domain == "domain0"])
    for split in corpus.SPLITS:
        assert [document for document in together[split] if document.domain == "domain0"] == alone[split]


def test_a_missing_split_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    with pytest.raises(AssetError) as caught:
        corpus.load("calibration")
    assert str(caught.value) == (
        f"corpus split 'calibration' is not in the cache ({tmp_path / 'corpus'}): run `qbench fetch` with a network"
    )


def test_a_split_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    path = corpus.split_path("calibration")
    path.parent.mkdir()
    path.write_text(json.dumps({"domain": "enwiki_2016", "name": "Forged", "text": "x"}) + "\n", encoding="utf-8")
    for split in ("train", "evaluation"):
        corpus.split_path(split).write_text("")  # type: ignore[arg-type]
    for use in (lambda: corpus.load("calibration"), corpus.build):
        with pytest.raises(
            AssetError, match=r" has sha256 \w{64}, pinned is \w{64}: remove it and run `qbench fetch`$"
        ):
            use()


def test_building_without_the_assets_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="run `qbench fetch enwiki_2016` with a network"):
        corpus.build()


def test_a_corpus_that_comes_out_otherwise_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus, "read_documents", lambda: documents_of([[10] * 40]))
    with pytest.raises(AssetError, match=r"^corpus split 'train' came out with sha256 \w{64}, pinned is \w{64}$"):
        corpus.build()
    assert not corpus.split_path("train").exists()


def test_the_sources_still_give_the_pinned_documents(splits: dict[corpus.Split, list[Document]]) -> None:
    stored = {
        (document.domain, document.name): document.text for documents in splits.values() for document in documents
    }
    made = [*corpus._bible(), *corpus._shakespeare()]
    assert {(document.domain, document.name): document.text for document in made} == {
        place: text for place, text in stored.items() if place[0] != "enwiki_2016"
    }
    # Cleaning all articles takes half a minute; every tenth tells of a change in the rules.
    (_, dump), *_ = assets.read_members("enwiki_2016")
    root = ElementTree.fromstring(bz2.decompress(dump))
    space = {"w": root.tag.partition("}")[0].lstrip("{")}
    pages = {page.findtext("w:title", "", space): page for page in root.iterfind("w:page", space)}
    titles = sorted(name for domain, name in stored if domain == "enwiki_2016")
    assert set(titles) <= set(pages)
    for title in titles[::10]:
        text = pages[title].findtext("w:revision/w:text", "", space)
        assert plain_text(text) == stored["enwiki_2016", title], title

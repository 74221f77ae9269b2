"""The three-text corpus: documents, and their split into train, calibration and evaluation.

The split is by document (an article, a book of the Bible, a work of Shakespeare), so that no document is in two
splits. Each split is pinned by the sha256 of its text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from qbench import atomic
from qbench.errors import AssetError
from qbench.tasks import assets
from qbench.tasks.evaluation import announce
from qbench.tasks.wikitext import read_articles

Split = Literal["train", "calibration", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)
SOURCES = ("enwiki_2016", "bible_kjv", "shakespeare")
# Share of each domain's characters that evaluation and calibration get; the rest is for training.
_HELD_OUT_SHARE = 0.06

# sha256 of the split files; `qbench fetch` refuses to keep a split that differs.
PINNED: dict[Split, str] = {
    "train": "4f6bba28ab06237b38bcb91cd45058dd817f30201bc7b2cf3db159df59fb6d25",
    "calibration": "483e35af8bac1079a7e816bb3cd3669653eaf2e2415e68fb79471e4c02afa102",
    "evaluation": "5f909ed9236ebba35b4929de85b12e2da6fea9730efdc30b0cf903662d7e743b",
}


@dataclass(frozen=True)
class Document:
    """One text that is never divided between splits.

    Attributes
    ----------
    domain : str
        The asset it comes from.
    name : str
        Its title, unique in the domain.
    text : str
        Cleaned text.
    """

    domain: str
    name: str
    text: str


def read_documents() -> list[Document]:
    """Return all documents, by domain and then in the order of their source; needs the three assets in the cache."""
    return [*_wikipedia(), *_bible(), *_shakespeare()]


def _wikipedia() -> Iterator[Document]:
    for _, dump in assets.read_members("enwiki_2016"):
        for title, text in read_articles(dump):
            yield Document("enwiki_2016", title, text)


def _bible() -> Iterator[Document]:
    for _, content in assets.read_members("bible_kjv"):
        verses = [json.loads(line) for line in content.decode().split("\n") if line.strip()]
        for book, of_book in groupby(verses, key=lambda verse: verse["book"]):
            chapters = groupby(of_book, key=lambda verse: verse["chapter"])
            text = "\n\n".join("\n".join(verse["text"].strip() for verse in of_chapter) for _, of_chapter in chapters)
            yield Document("bible_kjv", book, text)


def _shakespeare() -> Iterator[Document]:
    for member, content in assets.read_members("shakespeare"):
        lines = content.decode("utf-8", errors="strict").replace("\r\n", "\n").split("\n")
        text = "\n".join(line.rstrip() for line in lines).strip()
        yield Document("shakespeare", Path(member).name.removesuffix("_gut.txt"), text)


def split_documents(documents: Iterable[Document]) -> dict[Split, list[Document]]:
    """Split documents so that each domain gives about the same share of its characters to each held-out split.

    A document's place depends on the hash of its domain and name: evaluation is filled first, then calibration.

    Parameters
    ----------
    documents : iterable of Document
        In any order.

    Returns
    -------
    dict of str to list of Document
        Every document once; sorted by domain and hash.
    """
    splits: dict[Split, list[Document]] = {split: [] for split in SPLITS}
    by_domain = sorted(documents, key=lambda document: (document.domain, _rank(document)))
    for _, group in groupby(by_domain, key=lambda document: document.domain):
        of_domain = list(group)
        quota = _HELD_OUT_SHARE * sum(len(document.text) for document in of_domain)
        held: dict[Split, float] = {"evaluation": 0, "calibration": 0}
        for document in of_domain:
            # A document longer than what is left of a quota would tilt the split to one text: it trains.
            open_splits = [name for name, used in held.items() if used + len(document.text) <= 1.25 * quota]
            place: Split = open_splits[0] if open_splits else "train"
            splits[place].append(document)
            if place in held:
                held[place] += len(document.text)
    return splits


def _rank(document: Document) -> str:
    return hashlib.sha256(f"{document.domain}/{document.name}".encode()).hexdigest()


def split_path(split: Split) -> Path:
    """Return where the text of a split is kept in the cache."""
    return assets.cache_folder() / "corpus" / f"{split}-{PINNED.get(split, 'unpinned')[:12]}.jsonl"


def build() -> dict[Split, str]:
    """Clean and split the three texts into the cache; return each split's sha256.

    Raises
    ------
    AssetError
        An asset is missing, or a split is not what is pinned.
    """
    if PINNED and all(split_path(split).exists() for split in SPLITS):
        return {split: _verified(split)[1] for split in SPLITS}
    found: dict[Split, str] = {}
    for split, documents in split_documents(read_documents()).items():
        text = "".join(json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in documents)
        found[split] = assets.sha256_text(text)
        if PINNED and found[split] != PINNED[split]:
            raise AssetError(f"corpus split {split!r} came out with sha256 {found[split]}, pinned is {PINNED[split]}")
        atomic.write_text(split_path(split), text)
    return found


def load(split: Split) -> list[Document]:
    """Return the documents of a split.

    Raises
    ------
    AssetError
        The split is not in the cache, or its bytes are not the pinned ones.
    """
    announce(split, "the three texts")
    return [Document(**json.loads(line)) for line in _verified(split)[0].split("\n") if line]


def _verified(split: Split) -> tuple[str, str]:
    path = split_path(split)
    if not path.exists():
        raise AssetError(
            f"corpus split {split!r} is not in the cache ({path.parent}): run `qbench fetch` with a network"
        )
    text = path.read_text(encoding="utf-8")
    digest = assets.sha256_text(text)
    if digest != PINNED[split]:
        raise AssetError(f"{path} has sha256 {digest}, pinned is {PINNED[split]}: remove it and run `qbench fetch`")
    return text, digest

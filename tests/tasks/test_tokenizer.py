"""The embedded tokenizer: pinned, lossless, and repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench import atomic
from qbench.errors import AssetError
from qbench.tasks import corpus, tokenizer
from qbench.tasks.corpus import Document


def test_the_file_is_the_pinned_one() -> None:
    assert atomic.sha256_file(tokenizer.PATH) == tokenizer.SHA256
    loaded = tokenizer.load_tokenizer()
    assert loaded.get_vocab_size() == tokenizer.VOCAB_SIZE
    assert loaded.token_to_id(tokenizer.END_OF_TEXT) == 0


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    other.write_text(tokenizer.PATH.read_text() + " ")
    monkeypatch.setattr(tokenizer, "PATH", other)
    with pytest.raises(AssetError) as caught:
        tokenizer.load_tokenizer()
    assert str(caught.value) == f"{other} is not the pinned tokenizer: reinstall qbench"


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    loaded = tokenizer.load_tokenizer()
    ids = tokenizer.encode(loaded, [Document("d", "n", text)])[0]
    assert loaded.decode(ids) == text
    assert all(0 < token < tokenizer.VOCAB_SIZE for token in ids)


def test_each_document_is_encoded_on_its_own() -> None:
    loaded = tokenizer.load_tokenizer()
    documents = [Document("d", name, text) for name, text in (("a", "In the beginning"), ("b", " was the word"))]
    first, second = tokenizer.encode(loaded, documents)
    assert (first, second) == tuple(tokenizer.encode(loaded, [document])[0] for document in documents)


def test_training_repeats_itself() -> None:
    texts = [document.text for document in corpus.load("calibration")[:5]]
    assert tokenizer.train_tokenizer(texts).to_str() == tokenizer.train_tokenizer(texts).to_str()


def test_the_tokenizer_is_what_training_on_the_train_split_gives() -> None:
    trained = tokenizer.train_tokenizer(document.text for document in corpus.load("train"))
    assert trained.get_vocab() == tokenizer.load_tokenizer().get_vocab()

"""The byte-level BPE tokenizer of the embedded models: 1024 tokens, trained on the train split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qbench import atomic
from qbench.errors import AssetError
from qbench.tasks.corpus import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCAB_SIZE = 1024
END_OF_TEXT = "<|endoftext|>"
PATH = Path(__file__).parents[1] / "zoo" / "tokenizer.json"
SHA256 = "76b36f1fc010e2bb46c9796ec86575597dd45e83cec50835c21947363493be66"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train the tokenizer; the same texts in the same order give the same tokens.

    Parameters
    ----------
    texts : iterable of str
        The documents of the train split.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer() -> Tokenizer:
    """Return the embedded tokenizer, or raise `AssetError` when its file is not the pinned one."""
    if atomic.sha256_file(PATH) != SHA256:
        raise AssetError(f"{PATH} is not the pinned tokenizer: reinstall qbench")
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(PATH))


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> list[list[int]]:
    """Return the token ids of each document's text, without special tokens."""
    return [encoding.ids for encoding in tokenizer.encode_batch([document.text for document in documents])]

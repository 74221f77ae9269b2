"""Token ids of a split, encoded once and kept in the cache.

Encoding the training split takes longer than many a cell, and every worker of every run would do it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from qbench import atomic
from qbench.tasks import assets
from qbench.tasks.corpus import Document
from qbench.tasks.text_source import documents_sha256

_KEPT_ABOVE_CHARS = 100_000


def encoded(
    documents: Sequence[Document], tokenizer_json: str, encode: Callable[[list[str]], list[list[int]]]
) -> list[Tensor]:
    """Return the token ids of each document.

    Parameters
    ----------
    documents : sequence of Document
        What to encode.
    tokenizer_json : str
        The whole tokenizer as text; with the documents it names the file in the cache.
    encode : callable
        Encodes a list of texts; called where the cache has nothing.

    Returns
    -------
    list of Tensor of shape (n_tokens,), int64
        One a document.
    """
    if sum(len(document.text) for document in documents) < _KEPT_ABOVE_CHARS:
        return [torch.tensor(ids, dtype=torch.int64) for ids in encode([document.text for document in documents])]
    path = kept_at(documents, tokenizer_json)
    if path.exists():
        try:
            stored = load_file(path)
            return list(stored["ids"].to(torch.int64).split(stored["lengths"].tolist()))
        except (SafetensorError, KeyError):
            pass  # not a file of ours: it is made again
    ids = [torch.tensor(one, dtype=torch.int32) for one in encode([document.text for document in documents])]
    lengths = torch.tensor([len(one) for one in ids])
    atomic.write_bytes(path, save({"ids": torch.cat(ids), "lengths": lengths}))
    return [one.to(torch.int64) for one in ids]


def kept_at(documents: Sequence[Document], tokenizer_json: str) -> Path:
    """Return where the token ids of documents are kept in the cache, or would be; see `encoded`."""
    name = hashlib.sha256(f"{documents_sha256(list(documents))}{tokenizer_json}".encode()).hexdigest()
    return assets.cache_folder() / "tokens" / f"{name}.safetensors"

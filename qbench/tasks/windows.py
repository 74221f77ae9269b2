"""Token windows: how documents become the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.seeds import derive_seed

_EVALUATION_ROWS, _MOST_LOGITS = 32, 2**26
_CALIBRATION_ROWS, _MOST_CALIBRATION_TOKENS = 16, 2**13


@dataclass(frozen=True)
class Windows:
    """Non-overlapping windows of documents.

    Attributes
    ----------
    tokens : Tensor of shape (n_windows, length), int64
        Each row lies in one document; a document's tail shorter than a window is dropped.
    document : Tensor of shape (n_windows,), int64
        Index of the row's document in the list the windows were cut from.
    """

    tokens: Tensor
    document: Tensor

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def select(self, rows: Tensor) -> Windows:
        """Return the given rows, in the given order."""
        return Windows(self.tokens[rows], self.document[rows])


def cut(documents: Sequence[Sequence[int] | Tensor], length: int) -> Windows:
    """Cut each document into consecutive windows of `length` tokens.

    Parameters
    ----------
    documents : sequence of sequences of int or of Tensor of shape (n_tokens,)
        Token ids, one sequence a document.
    length : int
        Tokens a window.
    """
    rows, owners = [], []
    for index, ids in enumerate(documents):
        for start in range(0, len(ids) - length + 1, length):
            rows.append(torch.as_tensor(ids[start : start + length], dtype=torch.int64))
            owners.append(index)
    tokens = torch.stack(rows) if rows else torch.empty(0, length, dtype=torch.int64)
    return Windows(tokens, torch.tensor(owners, dtype=torch.int64))


def spread(windows: Windows, count: int) -> Windows:
    """Return `count` windows spread evenly over all of them, or all when there are fewer; no chance involved."""
    if count >= len(windows):
        return windows
    return windows.select(torch.arange(count, dtype=torch.int64) * len(windows) // count)


def first(windows: Windows, count: int) -> Windows:
    """Return the first `count` windows, or all when there are fewer."""
    return Windows(windows.tokens[:count], windows.document[:count])


def evaluation_rows(length: int, vocabulary: int) -> int:
    """Return how many windows are evaluated at once: so many that their logits take 256 MiB in float32 at most."""
    return max(1, min(_EVALUATION_ROWS, _MOST_LOGITS // (length * vocabulary)))


def calibration_rows(length: int) -> int:
    """Return how many windows a batch of calibration data has."""
    return max(1, min(_CALIBRATION_ROWS, _MOST_CALIBRATION_TOKENS // length))


def draw(windows: Windows, count: int, seed: int) -> Windows:
    """Return `count` different windows drawn at random, in the order drawn; all, shuffled, when there are fewer."""
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows.select(order[:count])


def stream(tokens: Tensor, length: int, batch_size: int, seed: int, start_step: int = 0) -> Iterator[Tensor]:
    """Yield training batches for ever: every epoch starts at a fresh offset and visits its windows in random order.

    Parameters
    ----------
    tokens : Tensor of shape (n_tokens,), int64
        All training documents, end to end.
    length : int
        Tokens a row.
    batch_size : int
        Rows a batch; the rest of an epoch that does not fill a batch is dropped.
    seed : int
        The stream's seed; epoch e draws from ``derive_seed(seed, e)``.
    start_step : int
        Batches to pass over, so that a resumed run sees what an unbroken one would have seen.

    Yields
    ------
    Tensor of shape (batch_size, length), int64
    """
    batches_per_epoch = (len(tokens) // length - 1) // batch_size
    if batches_per_epoch < 1:
        raise ValueError(f"{len(tokens)} tokens are too few for batches of {batch_size} windows of {length} tokens")
    epoch, skip = divmod(start_step, batches_per_epoch)
    while True:
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
        offset = int(torch.randint(length, (), generator=generator))
        order = torch.randperm(batches_per_epoch * batch_size, generator=generator)
        for batch in range(skip, batches_per_epoch):
            starts = offset + order[batch * batch_size : (batch + 1) * batch_size] * length
            yield tokens[starts[:, None] + torch.arange(length)]
        epoch, skip = epoch + 1, 0

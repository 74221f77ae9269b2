"""Windows of tokens: none runs over a document's end, none is seen twice in an epoch."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qbench.tasks.windows import Windows, calibration_rows, cut, draw, evaluation_rows, first, spread, stream

documents = st.lists(st.integers(0, 40), max_size=8).map(
    lambda lengths: [list(range(1000 * index, 1000 * index + length)) for index, length in enumerate(lengths)]
)
lengths = st.integers(2, 9)


def windows_of(count: int) -> Windows:
    return cut([list(range(index * 10, index * 10 + 10)) for index in range(count)], 10)


@given(documents, lengths)
def test_windows_lie_side_by_side_in_their_document(ids: list[list[int]], length: int) -> None:
    windows = cut(ids, length)
    assert windows.tokens.shape == (sum(len(own) // length for own in ids), length)
    assert windows.tokens.dtype == windows.document.dtype == torch.int64
    for index, own in enumerate(ids):
        kept = windows.tokens[windows.document == index].flatten().tolist()
        assert kept == own[: len(own) // length * length]


@given(documents, lengths)
def test_tensors_are_cut_like_lists(ids: list[list[int]], length: int) -> None:
    tensors = cut([torch.tensor(own, dtype=torch.int64) for own in ids], length)
    assert torch.equal(tensors.tokens, cut(ids, length).tokens)


@given(st.integers(0, 50), st.integers(1, 60))
def test_spread_windows_are_evenly_far_apart(total: int, count: int) -> None:
    chosen = spread(windows_of(total), count)
    assert len(chosen) == min(total, count)
    steps = chosen.document.diff()
    if len(steps):
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
        assert chosen.document[0] == 0


@given(st.integers(0, 50), st.integers(1, 60), st.integers(0, 2**63 - 1))
def test_drawn_windows_are_different_and_repeatable(total: int, count: int, seed: int) -> None:
    windows = windows_of(total)
    chosen = draw(windows, count, seed)
    assert len(chosen) == len(set(chosen.document.tolist())) == min(total, count)
    assert torch.equal(chosen.tokens, draw(windows, count, seed).tokens)
    assert torch.equal(chosen.tokens, windows.tokens[chosen.document])


def test_another_seed_draws_other_windows() -> None:
    assert draw(windows_of(50), 10, 0).document.tolist() != draw(windows_of(50), 10, 1).document.tolist()


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw(windows_of(50), 10, 3)
    next(stream(torch.arange(100), 5, 2, 3))
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(30, 300), st.integers(2, 9), st.integers(1, 4), st.integers(0, 30), st.integers(0, 9))
def test_a_resumed_stream_goes_on_where_it_was(
    tokens: int, length: int, batch_size: int, start: int, seed: int
) -> None:
    if (tokens // length - 1) // batch_size < 1:
        return
    ids = torch.arange(tokens)
    whole = list(islice(stream(ids, length, batch_size, seed), start + 5))
    resumed = list(islice(stream(ids, length, batch_size, seed, start), 5))
    assert torch.equal(torch.stack(whole[start:]), torch.stack(resumed))


@given(st.integers(30, 300), st.integers(2, 9), st.integers(1, 4), st.integers(0, 9))
def test_an_epoch_sees_no_token_twice_and_nearly_all(tokens: int, length: int, batch_size: int, seed: int) -> None:
    batches = (tokens // length - 1) // batch_size
    if batches < 1:
        return
    found = islice(stream(torch.arange(tokens), length, batch_size, seed), 3 * batches)
    for _ in range(3):
        epoch = torch.stack(list(islice(found, batches)))
        assert epoch.shape == (batches, batch_size, length)
        assert torch.equal(epoch.diff(dim=2), torch.ones_like(epoch[:, :, 1:]))  # rows are consecutive tokens
        assert max(Counter(epoch.flatten().tolist()).values()) == 1
        assert tokens - epoch.numel() < (batch_size + 1) * length


def test_epochs_start_at_different_offsets_and_in_different_orders() -> None:
    batches = (1000 // 8 - 1) // 4
    found = stream(torch.arange(1000), 8, 4, 0)
    first = torch.cat(list(islice(found, batches)))[:, 0]
    second = torch.cat(list(islice(found, batches)))[:, 0]
    assert not torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first.argsort(), second.argsort())
    assert not torch.equal(first, first.sort().values)


def test_too_few_tokens() -> None:
    with pytest.raises(ValueError, match="100 tokens are too few for batches of 4 windows of 32 tokens"):
        next(stream(torch.arange(100), 32, 4, 0))


def test_the_first_windows() -> None:
    windows = windows_of(5)
    assert torch.equal(first(windows, 2).tokens, windows.tokens[:2])
    assert torch.equal(first(windows, 9).document, windows.document)


@given(st.integers(8, 2**15), st.integers(256, 2**18))
def test_the_logits_of_a_batch_take_no_more_than_256_mib(length: int, vocabulary: int) -> None:
    rows = evaluation_rows(length, vocabulary)
    assert 1 <= rows <= 32
    assert rows == 1 or rows * length * vocabulary * 4 <= 2**28


def test_batches_of_the_embedded_models_and_of_large_ones() -> None:
    assert (evaluation_rows(128, 1024), calibration_rows(128)) == (32, 16)
    assert (evaluation_rows(512, 49_152), calibration_rows(512)) == (2, 16)
    assert (evaluation_rows(2048, 128_256), calibration_rows(2048)) == (1, 4)

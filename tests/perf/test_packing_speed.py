"""Packing and unpacking against numpy, which goes through single bits.

Memory traffic of packing, a code: 1 byte is read for the check, 2 are moved to copy it into words, and 2 as the words
of a piece come into the cache and go back; b/8 bytes are written. In the cache three halvings move 27 bytes. Unpacking
reads b/8 bytes and moves 3. numpy writes and reads b bytes (one a bit) in either direction.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.quant.packing import pack, unpack

SIZE = 4096
PAIRS = 5

each_width = pytest.mark.parametrize("bits", [2, 3, 4, 5, 7])


def drawn(bits: int) -> torch.Tensor:
    return torch.randint(2**bits, (SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def timed(benchmark: BenchmarkFixture, ours: Callable[[], object], reference: Callable[[], object]) -> float:
    """Time ours in turns with the reference, and return the median of the ratios."""
    seconds: list[float] = []

    def timed_reference() -> None:
        start = time.perf_counter()
        reference()
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(ours, setup=timed_reference, rounds=PAIRS, warmup_rounds=1)
    pairs = zip(benchmark.stats.stats.data, seconds[-PAIRS:], strict=True)
    benchmark.extra_info["ratio to numpy"] = ratio = statistics.median(mine / its for mine, its in pairs)
    return ratio


@pytest.mark.benchmark(group="pack 4096x4096")
@each_width
def test_packing_is_faster_than_through_single_bits(benchmark: BenchmarkFixture, bits: int) -> None:
    codes = drawn(bits)
    flat = codes.numpy().reshape(-1, 1)

    def reference() -> np.ndarray:
        return np.packbits(np.unpackbits(flat, axis=1, count=bits, bitorder="little"), bitorder="little")

    assert np.array_equal(pack(codes, bits).numpy(), reference())
    assert timed(benchmark, lambda: pack(codes, bits), reference) <= 0.5


@pytest.mark.benchmark(group="unpack 4096x4096")
@each_width
def test_unpacking_is_faster_than_through_single_bits(benchmark: BenchmarkFixture, bits: int) -> None:
    codes = drawn(bits)
    packed = pack(codes, bits)

    def reference() -> np.ndarray:
        single = np.unpackbits(packed.numpy(), bitorder="little").reshape(-1, bits)
        return np.packbits(single, axis=1, bitorder="little")

    assert np.array_equal(unpack(packed, bits, codes.numel()).numpy(), reference().ravel())
    assert timed(benchmark, lambda: unpack(packed, bits, codes.numel()), reference) <= 0.5

"""Packing and unpacking against numpy, which goes through single bits.

Memory traffic of packing, a code: 1 byte is read for the check, 2 are moved to copy it into words, and 2 as the words
of a piece come into the cache and go back; b/8 bytes are written. In the cache three halvings move 27 bytes. Unpacking
reads b/8 bytes and moves 3. numpy writes and reads b bytes (one a bit) in either direction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.quant.packing import pack, unpack

SIZE = 4096
InTurns = Callable[..., float]
PAIRS = 5
RATIO = "ratio to numpy"

each_width = pytest.mark.parametrize("bits", [2, 3, 4, 5, 7])


def drawn(bits: int) -> torch.Tensor:
    return torch.randint(2**bits, (SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.benchmark(group="pack 4096x4096")
@each_width
def test_packing_is_faster_than_through_single_bits(benchmark: BenchmarkFixture, in_turns: InTurns, bits: int) -> None:
    codes = drawn(bits)
    flat = codes.numpy().reshape(-1, 1)

    def reference() -> np.ndarray:
        return np.packbits(np.unpackbits(flat, axis=1, count=bits, bitorder="little"), bitorder="little")

    assert np.array_equal(pack(codes, bits).numpy(), reference())
    assert in_turns(benchmark, lambda: pack(codes, bits), reference, PAIRS, RATIO) <= 0.5


@pytest.mark.benchmark(group="unpack 4096x4096")
@each_width
def test_unpacking_is_faster_than_through_single_bits(
    benchmark: BenchmarkFixture, in_turns: InTurns, bits: int
) -> None:
    codes = drawn(bits)
    packed = pack(codes, bits)

    def reference() -> np.ndarray:
        single = np.unpackbits(packed.numpy(), bitorder="little").reshape(-1, bits)
        return np.packbits(single, axis=1, bitorder="little")

    assert np.array_equal(unpack(packed, bits, codes.numel()).numpy(), reference().ravel())
    assert in_turns(benchmark, lambda: unpack(packed, bits, codes.numel()), reference, PAIRS, RATIO) <= 0.5

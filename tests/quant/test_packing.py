"""Packed codes, against the same bits written as one long integer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from qbench.quant.packing import pack, packed_bits, unpack


@st.composite
def coded(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.integers(1, 8))
    return bits, draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))


@given(coded())
def test_packing_is_undone_by_unpacking(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert packed.dtype == torch.uint8
    assert unpack(packed, bits, len(codes)).tolist() == codes


@given(coded())
def test_the_bytes_are_those_of_one_little_endian_integer(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    number = sum(code << bits * place for place, code in enumerate(codes))
    expected = number.to_bytes(-(-len(codes) * bits // 8), "little")
    assert bytes(pack(torch.tensor(codes, dtype=torch.uint8), bits).tolist()) == expected


def test_a_matrix_is_packed_row_by_row() -> None:
    codes = torch.tensor([[1, 2, 3], [0, 3, 1]], dtype=torch.uint8)
    assert pack(codes, 2).tolist() == pack(codes.flatten(), 2).tolist()
    assert pack(codes.T, 2).tolist() == pack(codes.T.contiguous(), 2).tolist() != pack(codes, 2).tolist()


def test_a_code_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a code of 4 does not fit into 2 bits"):
        pack(torch.tensor([0, 4], dtype=torch.uint8), 2)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("numel", [1, 7, 8, 9, 2**18 - 1, 2**18, 2**18 + 3])
def test_pieces_of_a_long_row_join_without_a_seam(bits: int, numel: int) -> None:
    codes = torch.randint(2**bits, (numel,), dtype=torch.uint8, generator=torch.Generator().manual_seed(numel))
    single = np.unpackbits(codes.numpy()[:, None], axis=1, count=bits, bitorder="little")
    packed = pack(codes, bits)
    assert np.array_equal(packed.numpy(), np.packbits(single, bitorder="little"))
    assert torch.equal(unpack(packed, bits, numel), codes)


@given(st.lists(st.integers(0, 2), max_size=40))
def test_three_levels_are_digits_to_the_base_of_three(digits: list[int]) -> None:
    packed = pack(torch.tensor(digits, dtype=torch.uint8), 2, 3)
    assert len(packed) == packed_bits(len(digits), 3, 2) // 8
    number = [sum(digit * 3**place for place, digit in enumerate(digits[i : i + 5])) for i in range(0, len(digits), 5)]
    assert packed.tolist() == number
    assert unpack(packed, 2, len(digits), 3).tolist() == digits


@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes_that_are_packed_or_read_are_left_as_they_were(bits: int) -> None:
    codes = (torch.arange(64) % 2**bits).to(torch.uint8)
    before = codes.clone()
    packed = pack(codes, bits)
    kept = packed.clone()
    unpacked = unpack(packed, bits, 64)
    unpacked.zero_()
    packed.zero_()
    assert torch.equal(codes, before)
    assert torch.equal(unpack(kept, bits, 64), before)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in [found] if isinstance(found, torch.Tensor) else []:
            self.nbytes = max(self.nbytes, tensor.nbytes)
        return found


@pytest.mark.parametrize(("bits", "count"), [(2, 3), *((bits, 2**bits) for bits in range(1, 9))])
def test_no_tensor_on_the_way_is_larger_than_the_codes(bits: int, count: int) -> None:
    codes = torch.zeros(1024, 1024, dtype=torch.uint8)
    with Largest() as largest:
        packed = pack(codes, bits, count)
        unpack(packed, bits, codes.numel(), count)
    assert codes.nbytes <= largest.nbytes <= 1.01 * codes.nbytes

"""Packed codes, against the same bits written as one long integer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qbench.quant.packing import pack, unpack


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

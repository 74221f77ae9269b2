"""Codes as they are stored: `bits` bits each without gaps, and five to a byte where there are three levels."""

from __future__ import annotations

import torch
from torch import Tensor

_TRITS = 5  # 3^5 = 243 fit into a byte


def packed_bits(numel: int, count: int, bits: int) -> int:
    """Return the bits that `numel` codes of `count` levels take, before the last byte is filled up."""
    return 8 * -(-numel // _TRITS) if count == 3 else bits * numel


def pack(codes: Tensor, bits: int, count: int | None = None) -> Tensor:
    """Pack unsigned codes into bytes, lowest bit (or lowest of five digits to the base of three) first.

    Parameters
    ----------
    codes : Tensor of any shape, uint8
        Values below `count`; flattened in row-major order.
    bits : int
        Bits a code, 1 to 8.
    count : int, optional
        Number of levels, by default 2^bits.

    Returns
    -------
    Tensor of shape (ceil(packed_bits / 8),), uint8
    """
    flat = codes.flatten()
    levels = 2**bits if count is None else count
    if flat.numel() and int(flat.max()) >= levels:
        raise ValueError(f"a code of {int(flat.max())} does not fit into {bits} bits, or is none of {levels} levels")
    if levels == 3:
        digits = torch.nn.functional.pad(flat, (0, -flat.numel() % _TRITS)).reshape(-1, _TRITS)
        return (digits * 3 ** torch.arange(_TRITS, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)
    if 8 % bits == 0:
        # Whole codes fill a byte, lowest first: the same bytes without going through single bits.
        stream = torch.nn.functional.pad(flat, (0, -flat.numel() % (8 // bits))).reshape(-1, 8 // bits)
        return (stream << torch.arange(0, 8, bits, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)
    stream = (flat[:, None] >> torch.arange(bits, dtype=torch.uint8)) & 1
    stream = torch.nn.functional.pad(stream.flatten(), (0, -stream.numel() % 8)).reshape(-1, 8)
    return (stream << torch.arange(8, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, numel: int, count: int | None = None) -> Tensor:
    """Return the first codes of what `pack` returned.

    Parameters
    ----------
    packed : Tensor of shape (n_bytes,), uint8
        From `pack`.
    bits : int
        Bits a code.
    numel : int
        How many codes.
    count : int, optional
        Number of levels, by default 2^bits.

    Returns
    -------
    Tensor of shape (numel,), uint8
    """
    if count == 3:
        digits = packed[:, None] // 3 ** torch.arange(_TRITS, dtype=torch.uint8) % 3
        return digits.flatten()[:numel]
    stream = ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[: numel * bits]
    return (stream.reshape(numel, bits) << torch.arange(bits, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)

"""Codes as they are stored: `bits` bits each, no gaps."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack unsigned codes into bytes, lowest bit first.

    Parameters
    ----------
    codes : Tensor of any shape, uint8
        Values below 2^bits; flattened in row-major order.
    bits : int
        Bits a code, 1 to 8.

    Returns
    -------
    Tensor of shape (ceil(numel * bits / 8),), uint8
    """
    flat = codes.flatten()
    if flat.numel() and int(flat.max()) >= 2**bits:
        raise ValueError(f"a code of {int(flat.max())} does not fit into {bits} bits")
    if 8 % bits == 0:
        # Whole codes fill a byte, lowest first: the same bytes without going through single bits.
        stream = torch.nn.functional.pad(flat, (0, -flat.numel() % (8 // bits))).reshape(-1, 8 // bits)
        return (stream << torch.arange(0, 8, bits, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)
    stream = (flat[:, None] >> torch.arange(bits, dtype=torch.uint8)) & 1
    stream = torch.nn.functional.pad(stream.flatten(), (0, -stream.numel() % 8)).reshape(-1, 8)
    return (stream << torch.arange(8, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, numel: int) -> Tensor:
    """Return the first `numel` codes of what `pack` returned, as uint8 of shape (numel,)."""
    stream = ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[: numel * bits]
    return (stream.reshape(numel, bits) << torch.arange(bits, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)

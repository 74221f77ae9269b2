"""Codes as they are stored: `bits` bits each without gaps, and five to a byte where there are three levels.

Eight codes of b bits fill b bytes. A 64-bit word holds eight codes, one a byte, and three halvings push them together:
first two codes in 16 bits, then four in 32, then all eight. Unpacking pulls them apart in the opposite order. Words are
taken in pieces that stay in a core's cache, so memory beyond codes and bytes does not grow with the matrix.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_TRITS = 5  # 3^5 = 243 fit into a byte
_CODES = 8  # codes in a word
_PIECE = 1 << 15  # words a piece: 256 KiB


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
        return _pack_trits(flat)
    if bits == 8:
        return flat.clone()
    numel = flat.numel()
    words = flat.new_empty(-(-numel // _CODES) * _CODES)
    words[:numel], words[numel:] = flat, 0
    packed = flat.new_empty(len(words) // _CODES, bits)
    for own, into in _pieces(words.view(-1, _CODES), packed):
        word = own.view(torch.int64)
        for lane in (8, 16, 32):
            # Each lane holds lane/8 codes in its low bits; the upper lane of two moves down onto the lower.
            low = _lanes(lane)
            upper = torch.bitwise_and(word, low << lane).bitwise_right_shift_(lane - bits * lane // 8)
            torch.bitwise_and(word, low, out=word).bitwise_or_(upper)
        into.copy_(own[:, :bits])
    length = -(-packed_bits(numel, levels, bits) // 8)
    return packed.view(-1) if packed.numel() == length else packed.view(-1)[:length].clone()


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
        return _trits(packed.device).index_select(0, packed.int()).view(-1)[:numel]
    if bits == 8:
        return packed[:numel].clone()
    groups = -(-numel // _CODES)
    whole = packed
    if len(packed) < groups * bits:
        whole = packed.new_zeros(groups * bits)
        whole[: len(packed)] = packed
    codes = packed.new_zeros(groups, _CODES)
    for into, own in _pieces(codes, whole[: groups * bits].view(-1, bits)):
        into[:, :bits] = own
        word = into.view(torch.int64)
        for lane in (32, 16, 8):
            kept = bits * lane // 8
            low = _lanes(lane, kept)
            upper = torch.bitwise_left_shift(word, lane - kept).bitwise_and_(low << lane)
            word.bitwise_and_(low).bitwise_or_(upper)
    return codes.view(-1)[:numel]


def _pieces(words: Tensor, packed: Tensor) -> zip[tuple[Tensor, Tensor]]:
    return zip(words.split(_PIECE), packed.split(_PIECE), strict=True)


def _lanes(lane: int, kept: int | None = None) -> int:
    """Return a word with the lowest `kept` bits (by default all) of every other lane set, from the lowest lane on."""
    ones = (1 << (lane if kept is None else kept)) - 1
    return sum(ones << place for place in range(0, 64, 2 * lane))


def _pack_trits(flat: Tensor) -> Tensor:
    digits = torch.nn.functional.pad(flat, (0, -flat.numel() % _TRITS)).reshape(-1, _TRITS)
    packed = digits[:, -1].clone()
    for place in range(_TRITS - 2, -1, -1):
        packed.mul_(3).add_(digits[:, place])
    return packed


@cache
def _trits(device: torch.device) -> Tensor:
    """Return the five digits of each byte; bytes that are none end in digits of no meaning."""
    return (
        torch.arange(256, device=device)[:, None]
        .div(3 ** torch.arange(_TRITS, device=device), rounding_mode="floor")
        .remainder(3)
        .to(torch.uint8)
    )

"""The numbers of small floating-point formats."""

from __future__ import annotations

import re
from functools import lru_cache

from qbench.quant.levels import LevelTable

# For each number of bits the format that is used where none is named: the published one where there is one, otherwise
# with as many bits of exponent as of mantissa, or one more.
DEFAULT_FORMATS = {2: "e1m0", 3: "e2m0", 4: "e2m1", 5: "e2m2", 6: "e3m2", 7: "e3m3", 8: "e4m3"}
LARGEST_EXPONENT_BITS = 6


def bits_of(name: str) -> int:
    """Return the bits of a number: sign, exponent and mantissa.

    Raises
    ------
    ValueError
        The name is not that of a format.
    """
    exponent_bits, mantissa_bits = _parts(name)
    return 1 + exponent_bits + mantissa_bits


@lru_cache
def float_levels(name: str) -> LevelTable:
    """Return the finite numbers of a format ``eXmY``: a sign, X bits of exponent and Y of mantissa.

    Parameters
    ----------
    name : str
        Such as ``e2m1``.

    Returns
    -------
    LevelTable
        With one 0, and so fewer than 2^bits numbers.

    Raises
    ------
    ValueError
        The name is not that of a format.

    Notes
    -----
    The bias is ``2^(X-1) - 1``, and an exponent of 0 stands for subnormal numbers. Codes that stand for no number are
    those of the OCP formats (8-bit floating point, revision 1.0, section 5; microscaling formats, version 1.0, section
    5.3): in e4m3 the one of all ones, in e5m2 all with the highest exponent, in others none.
    """
    exponent_bits, mantissa_bits = _parts(name)
    bias, steps = 2 ** (exponent_bits - 1) - 1, 2**mantissa_bits
    codes = [(exponent, mantissa) for exponent in range(2**exponent_bits) for mantissa in range(steps)]
    if name == "e5m2":
        codes = [(exponent, mantissa) for exponent, mantissa in codes if exponent < 31]
    elif name == "e4m3":
        codes.remove((15, 7))
    positive = [
        (mantissa / steps) * 2.0 ** (1 - bias) if exponent == 0 else (1 + mantissa / steps) * 2.0 ** (exponent - bias)
        for exponent, mantissa in codes
    ]
    values = [*(-value for value in reversed(positive[1:])), *positive]
    return LevelTable(1 + exponent_bits + mantissa_bits, tuple(values), name)


def _parts(name: str) -> tuple[int, int]:
    found = re.fullmatch(r"e(\d)m(\d)", name)
    if found is None:
        raise ValueError(f"{name!r} is not a floating-point format (allowed: eXmY, such as e2m1)")
    exponent_bits, mantissa_bits = (int(part) for part in found.groups())
    if not (1 <= exponent_bits <= LARGEST_EXPONENT_BITS and exponent_bits + mantissa_bits <= 7):
        # An e7 would reach over as many powers of two as float32 itself, which leaves none to the scale.
        raise ValueError(
            f"{name!r} is not a floating-point format of 2 to 8 bits with 1 to {LARGEST_EXPONENT_BITS} of exponent"
        )
    return exponent_bits, mantissa_bits

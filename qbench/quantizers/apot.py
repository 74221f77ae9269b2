"""Additive powers of two."""

from __future__ import annotations

from itertools import product

from qbench.quant.levels import LevelTable
from qbench.quantizers.table import TableQuantizer


class AdditivePowersOfTwo(TableQuantizer):
    """Sums of powers of two (Li et al., 2020, arXiv:1909.13144, section 2.2): a sign and ``2^(b-1)`` magnitudes.

    With m = b - 1 bits for the magnitude, a level is the sum of ``n = m // 2`` terms of two bits each and, where m is
    odd, one term of one bit, over the largest such sum. The terms share the powers ``2^-1, 2^-2, ...`` out among them:
    in turn, so that each has its own; a term is one of its powers or 0.

    Notes
    -----
    At 2 bits the levels are -1, 0 and 1. Magnitudes of 2 to 6 bits are those of the published code, which ends there;
    8 bits follow the same rule. The paper trains the scale; here it is chosen by `range`.
    """

    def levels(self, bits: int) -> LevelTable:
        """Return the additive powers of two of so many bits."""
        sums = [sum(parts) for parts in product(*_terms(bits - 1))]
        rising = [value / max(sums) for value in sorted(sums)]
        return LevelTable(bits, (*(-value for value in reversed(rising[1:])), *rising), f"apot{bits}")


def _terms(bits: int) -> list[list[float]]:
    """Return what each term of a magnitude can be."""
    count = bits // 2
    terms = [[0.0] for _ in range(count)]
    # A term of two bits takes part in three rounds, the one of a single bit between the second and the third.
    order = [*range(count), *range(count), *([count] if bits % 2 else []), *range(count)]
    if bits % 2:
        terms.append([0.0])
    for exponent, place in enumerate(order, start=1):
        terms[place].append(2.0**-exponent)
    return terms

"""Powers of two."""

from __future__ import annotations

from typing import ClassVar

from qbench.quant.levels import LevelTable
from qbench.quantizers.table import TableQuantizer


class PowersOfTwo(TableQuantizer):
    """Powers of two and 0: ``0, +-1, +-1/2, +-1/4, ...``, with ``2^(b-1) - 1`` magnitudes.

    Products with such weights are shifts (Miyashita et al., 2016, arXiv:1603.01025; Zhou et al., 2017,
    arXiv:1702.03044). A further bit doubles the exponents and adds no level near the largest, which additive powers of
    two mend.

    Attributes
    ----------
    allowed_bits : sequence of int
        2 to 7: the smallest level of 8 bits, ``2^-126`` of the largest, is below what float32 holds.

    Notes
    -----
    Rounding is to the nearest level, with boundaries at ``1.5 * 2^k``; the papers above round the logarithm. Li et al.
    (2020, arXiv:1909.13144) write a pair of levels more in equation 4, which would be too many for b bits; their code
    has these.
    """

    allowed_bits: ClassVar[range | tuple[int, ...]] = range(2, 8)

    def levels(self, bits: int) -> LevelTable:
        """Return the powers of two of so many bits."""
        rising = [2.0**-exponent for exponent in reversed(range(2 ** (bits - 1) - 1))]
        return LevelTable(bits, (*(-value for value in reversed(rising)), 0.0, *rising), f"pot{bits}")

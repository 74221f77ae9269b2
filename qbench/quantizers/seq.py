"""Balanced levels without a zero."""

from __future__ import annotations

from qbench.quant.levels import LevelTable
from qbench.quantizers.table import TableQuantizer


class StretchedElastic(TableQuantizer):
    """ParetoQ's balanced levels (Liu et al., 2025, arXiv:2502.02631): ``+-(k + 1/2) / 2^(b-1)`` of the range.

    All 2^b levels lie in the middle of as many equal parts of ``[-a, a]``: none is lost for symmetry, and none is 0.
    The paper uses them at 2 bits (-3/4, -1/4, 1/4, 3/4), where it trains a from the block's largest magnitude.

    Notes
    -----
    Weights count as clipped beyond a, not beyond the last level; the published code clips at 0.99 a, which moves no
    weight to another level up to 7 bits.
    """

    def levels(self, bits: int) -> LevelTable:
        """Return the balanced levels of so many bits."""
        half = 2 ** (bits - 1)
        values = tuple((place + 0.5) / half for place in range(-half, half))
        return LevelTable(bits, values, f"seq{bits}", range_end=1.0)

"""MXFP4."""

from __future__ import annotations

from typing import ClassVar

from qbench.quant.levels import LevelTable
from qbench.quantizers.float_format import float_levels
from qbench.quantizers.microscaling import Microscaling


class MXFP4(Microscaling):
    """MXFP4 of the OCP microscaling formats: E2M1 in groups of 32, with scales in E8M0.

    Attributes
    ----------
    allowed_bits : sequence of int
        4.
    """

    allowed_bits: ClassVar[range | tuple[int, ...]] = (4,)

    def levels(self, bits: int) -> LevelTable:
        """Return the numbers of E2M1."""
        return float_levels("e2m1")

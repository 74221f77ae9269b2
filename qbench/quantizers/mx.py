"""The microscaling formats with other elements than MXFP4's."""

from __future__ import annotations

from typing import ClassVar, Literal

from qbench.quant.levels import LevelTable
from qbench.quantizers.float_format import DEFAULT_FORMATS, bits_of, float_levels
from qbench.quantizers.microscaling import Microscaling


class MX(Microscaling):
    """An OCP microscaling format: MXFP4, MXFP6 or MXFP8.

    Attributes
    ----------
    allowed_bits : sequence of int
        4, 6 and 8.
    format : str or None
        Of the elements; by default e2m1 at 4 bits, e3m2 at 6, e4m3 at 8.
    """

    allowed_bits: ClassVar[range | tuple[int, ...]] = (4, 6, 8)

    format: Literal["e2m1", "e2m3", "e3m2", "e4m3", "e5m2"] | None = None

    def refuses(self, bits: int) -> str | None:
        """Return why there is no such format; see `Quantizer.refuses`."""
        if self.format is not None and bits_of(self.format) != bits:
            return f"format {self.format} has {bits_of(self.format)} bits, not {bits}"
        return super().refuses(bits)

    def levels(self, bits: int) -> LevelTable:
        """Return the numbers of the element's format."""
        return float_levels(self.format or DEFAULT_FORMATS[bits])

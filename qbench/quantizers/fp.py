"""Small floating-point formats."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator

from qbench.quant.levels import LevelTable
from qbench.quantizers.float_format import DEFAULT_FORMATS, bits_of, float_levels
from qbench.quantizers.table import TableQuantizer


def _known(name: str) -> str:
    bits_of(name)
    return name


class FloatingPoint(TableQuantizer):
    """The numbers of a floating-point format, times a scale in float32.

    Attributes
    ----------
    format : str or None
        ``eXmY``, with X bits of exponent and Y of mantissa beside the sign. By default e1m0 at 2 bits, e2m0 at 3, e2m1
        at 4, e2m2 at 5, e3m2 at 6, e3m3 at 7, e4m3 at 8.

    Notes
    -----
    Ties go to the even mantissa. See `qbench.quantizers.float_format.float_levels` for what the codes stand for.
    """

    sources: ClassVar[tuple[str, ...]] = (*TableQuantizer.sources, "qbench.quantizers.float_format")

    format: Annotated[str, AfterValidator(_known)] | None = None

    def refuses(self, bits: int) -> str | None:
        """Return why there is no such format; see `Quantizer.refuses`."""
        if self.format is not None and bits_of(self.format) != bits:
            return f"format {self.format} has {bits_of(self.format)} bits, not {bits}"
        return super().refuses(bits)

    def levels(self, bits: int) -> LevelTable:
        """Return the numbers of the format."""
        return float_levels(self.format or DEFAULT_FORMATS[bits])

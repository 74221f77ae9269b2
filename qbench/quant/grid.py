"""Uniform integer grids: which levels there are, before any scale."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IntegerGrid:
    """The integer levels of a `bits`-bit code.

    Attributes
    ----------
    bits : int
        Bits a code, 2 to 8.
    symmetric : bool
        Signed levels ``-2^(b-1) .. 2^(b-1)-1`` and no zero point, or unsigned levels ``0 .. 2^b-1`` with one.

    Notes
    -----
    The symmetric convention is ``full_range``: a range of ``[-a, a]`` gets the scale ``2a / (2^b - 1)``, so all ``2^b``
    levels are used and the negative side has one level more. At 2 bits the levels of ``a = 1`` are
    ``-4/3, -2/3, 0, 2/3``. GPTQ's reference code, torchao and llm-compressor use it; other toolkits do not, and their
    2-bit numbers differ.
    """

    bits: int
    symmetric: bool

    @property
    def quant_min(self) -> int:
        """Lowest level."""
        return -(1 << (self.bits - 1)) if self.symmetric else 0

    @property
    def quant_max(self) -> int:
        """Highest level."""
        return self.quant_min + (1 << self.bits) - 1

    def describe(self) -> str:
        """Return the convention by name, for records and tables."""
        return "symmetric full_range" if self.symmetric else "asymmetric min-max with integer zero point"

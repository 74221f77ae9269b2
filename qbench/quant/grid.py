"""Uniform integer grids: which levels there are, before any scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Convention = Literal["full_range", "narrow_range", "larger_side"]
"""How a symmetric grid of 2^b codes lies over a range [-a, a]; see `IntegerGrid`."""


@dataclass(frozen=True)
class IntegerGrid:
    """The integer levels of a `bits`-bit code.

    Attributes
    ----------
    bits : int
        Bits a code, 2 to 8.
    symmetric : bool
        Signed levels around 0, or unsigned levels ``0 .. 2^b-1`` with a zero point.
    convention : str
        What a symmetric grid does with its odd level; without meaning on an asymmetric one.

    Notes
    -----
    Zero is a level, so one of the 2^b levels has no partner. Toolkits differ in what becomes of it, and their 2-bit
    numbers with them. Over a range of ``[-a, a]``:

    ================  ====================  =========================  ==========================  =====================
    convention        scale                 levels                     2 bits, a = 1               found in
    ================  ====================  =========================  ==========================  =====================
    ``full_range``    ``2a / (2^b - 1)``    ``-2^(b-1)..2^(b-1)-1``    -4/3, -2/3, 0, 2/3          GPTQ's reference
                                                                                                   code, torchao,
                                                                                                   llm-compressor
    ``narrow_range``  ``a / (2^(b-1)-1)``   ``-(2^(b-1)-1)..``         -1, 0, 1                    Brevitas,
                                            ``2^(b-1)-1``                                          neural-compressor
    ``larger_side``   ``a / 2^(b-1)``       one level more on the      -1, -1/2, 0, 1/2 or         AIMET
                                            side of the block's        -1/2, 0, 1/2, 1
                                            largest magnitude
    ================  ====================  =========================  ==========================  =====================

    ``larger_side`` is written with the levels of ``full_range`` and a zero point of 0 or -1, a bit a block.
    """

    bits: int
    symmetric: bool
    convention: Convention = "full_range"

    @property
    def quant_min(self) -> int:
        """Lowest level."""
        if not self.symmetric:
            return 0
        return -(1 << (self.bits - 1)) + (self.convention == "narrow_range")

    @property
    def quant_max(self) -> int:
        """Highest level."""
        return (1 << (self.bits - 1)) - 1 if self.symmetric else (1 << self.bits) - 1

    @property
    def zero_points(self) -> range:
        """The zero points that a block may have."""
        if not self.symmetric:
            return range(self.quant_min, self.quant_max + 1)
        return range(-1, 1) if self.convention == "larger_side" else range(1)

    @property
    def zero_point_bits(self) -> int:
        """Bits needed to store a zero point."""
        return (len(self.zero_points) - 1).bit_length()

    def describe(self) -> str:
        """Return the convention by name, for records and tables."""
        return f"symmetric {self.convention}" if self.symmetric else "asymmetric min-max with integer zero point"

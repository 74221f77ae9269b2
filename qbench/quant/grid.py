"""Uniform integer grids: which levels there are, before any scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qbench.errors import QBenchError

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.snapping import IntegerSnapping

Convention = Literal["full_range", "narrow_range", "larger_side"]
"""How a symmetric grid of 2^b codes lies over a range [-a, a]; see `IntegerGrid`."""


@dataclass(frozen=True)
class IntegerGrid:
    """The integer levels of a `bits`-bit code.

    Attributes
    ----------
    bits : int
        Bits a code, 1 to 8.
    symmetric : bool
        Signed levels around 0, or unsigned levels ``0 .. 2^b-1`` with a zero point.
    convention : str
        What a symmetric grid does with its odd level; without meaning on an asymmetric one.
    real_zero_point : bool
        Whether the zero point of an asymmetric grid may lie between two levels; then 0 is no level.

    Raises
    ------
    QBenchError
        A narrow range of 1 bit, whose only level is 0, or a real zero point on a symmetric grid.

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
    real_zero_point: bool = False

    def __post_init__(self) -> None:
        if self.bits == 1 and self.symmetric and self.convention == "narrow_range":
            raise QBenchError("a narrow_range grid of 1 bit has one level, 0 (allowed: 2 bits or more)")
        if self.real_zero_point and self.symmetric:
            raise QBenchError("a symmetric grid has no zero point that could be real")

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
    def count(self) -> int:
        """Number of levels."""
        return self.quant_max - self.quant_min + 1

    @property
    def zero_points(self) -> range:
        """The zero points that a block may have; whole ones only, unless `real_zero_point`."""
        if not self.symmetric:
            return range(self.quant_min, self.quant_max + 1)
        return range(-1, 1) if self.convention == "larger_side" else range(1)

    @property
    def zero_point_bits(self) -> int:
        """Bits needed to store a zero point."""
        return 32 if self.real_zero_point else (len(self.zero_points) - 1).bit_length()

    @property
    def reach(self) -> float:
        """Levels on either side of 0, about half of all of them on an unsigned grid; at least 1."""
        return max(1, self.quant_max if self.symmetric else 2 ** (self.bits - 1) - 1)

    def snapping(self, zero_point: Tensor, table: Tensor | None = None) -> IntegerSnapping:
        """Return the levels at given zero points; see `qbench.quant.snapping`."""
        from qbench.quant.snapping import IntegerSnapping

        return IntegerSnapping.of(self, zero_point)

    def describe(self) -> str:
        """Return the convention by name, for records and tables."""
        if self.symmetric:
            return f"symmetric {self.convention}"
        return f"asymmetric min-max with {'real' if self.real_zero_point else 'integer'} zero point"

"""How scales are stored: in float32, or in the eight bits of a microscaling format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

E4M3_MAX = 448.0


class ScaleFormat(Protocol):
    """A set of numbers that a block's scale can be."""

    @property
    def bits(self) -> int:
        """Bits a scale."""

    @property
    def shared_bits(self) -> int:
        """Bits that all scales of a weight share."""

    @property
    def name(self) -> str:
        """What it is called in records."""

    def round(self, scale: Tensor) -> Tensor:
        """Return the nearest numbers of the format; a scale that is one already stays."""


@dataclass(frozen=True)
class Float32:
    """Any float32.

    Attributes
    ----------
    bits, shared_bits : int
        Bits a scale, and bits that all scales of a weight share.
    name : str
        What it is called in records.
    """

    bits: int = 32
    shared_bits: int = 0
    name: str = "float32"

    def round(self, scale: Tensor) -> Tensor:
        """Return the scale as it is."""
        return scale


@dataclass(frozen=True)
class PowerOfTwo:
    """E8M0 of the OCP microscaling formats (v1.0, section 5.4.1): powers of two, here ``2^-126 .. 2^127``.

    Attributes
    ----------
    bits, shared_bits : int
        Bits a scale, and bits that all scales of a weight share.
    name : str
        What it is called in records.
    """

    bits: int = 8
    shared_bits: int = 0
    name: str = "e8m0"

    def round(self, scale: Tensor) -> Tensor:
        """Return the nearest power of two by exponent."""
        import torch

        # The lowest, 2^-127, is no normal float32, and some devices flush it. Bits are exact where exp2 may not be.
        exponent = scale.float().log2().round().clamp(-126, 127).int()
        return ((exponent + 127) << 23).view(torch.float32).to(scale.dtype)


@dataclass(frozen=True)
class ScaledE4M3:
    """E4M3 times one float32 for the whole weight, as in NVFP4.

    Attributes
    ----------
    tensor_scale : float
        The shared factor.
    bits, shared_bits : int
        Bits a scale, and bits that all scales of a weight share.
    name : str
        What it is called in records.
    """

    tensor_scale: float
    bits: int = 8
    shared_bits: int = 32
    name: str = "e4m3 x float32"

    def round(self, scale: Tensor) -> Tensor:
        """Return the nearest number of the format, at least its smallest normal one."""
        import torch

        ratio = (scale / self.tensor_scale).clamp(2.0**-6, E4M3_MAX)
        return ratio.to(torch.float8_e4m3fn).to(scale.dtype) * self.tensor_scale


FLOAT32 = Float32()

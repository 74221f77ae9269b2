"""Normal float: levels at the quantiles of a normal distribution."""

from __future__ import annotations

import struct
from functools import lru_cache
from statistics import NormalDist

from qbench.quant.levels import LevelTable
from qbench.quantizers.table import TableQuantizer


class NormalFloat(TableQuantizer):
    """The normal float of QLoRA (Dettmers et al., 2023, arXiv:2305.14314, section 3), at any bits.

    Levels are quantiles of the standard normal distribution, over their largest: ``2^(b-1)`` positive ones and
    ``2^(b-1) - 1`` negative ones, each half at even distances of probability, and 0. Both ends are levels.

    Notes
    -----
    The outermost quantile is that of ``1 - (1/2^(b+1) + 1/(2^(b+1) - 2)) / 2``, the mean over both halves of half a
    step. At 4 bits the levels are those published, to the last bit of float32.
    """

    def levels(self, bits: int) -> LevelTable:
        """Return the normal float of so many bits."""
        return _normal_float(bits)


@lru_cache
def _normal_float(bits: int) -> LevelTable:
    half = 2 ** (bits - 1)
    # QLoRA's code has 0.9677083 for 4 bits: seven digits.
    outermost = round(1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2, 7)
    quantile = NormalDist().inv_cdf
    positive = [_float32(quantile(share)) for share in _even_steps(outermost, 0.5, half + 1)[:-1]]
    negative = [-_float32(quantile(share)) for share in _even_steps(outermost, 0.5, half)[:-1]]
    largest = positive[0]
    values = sorted(_float32(value / largest) for value in [*negative, 0.0, *positive])
    return LevelTable(bits, tuple(values), f"nf{bits}")


def _even_steps(start: float, end: float, count: int) -> list[float]:
    """Return even steps in float32, counted from the nearer end: the published table was made of these."""
    first = _float32(start)
    step = _float32(_float32(end - first) / (count - 1))
    return [
        _float32(first + step * place if place < count // 2 else end - step * (count - 1 - place))
        for place in range(count)
    ]


def _float32(value: float) -> float:
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)

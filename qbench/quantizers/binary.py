"""Two levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qbench.quant.levels import LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


class Binary(Quantizer):
    """The sign of a weight, times the block's ``mean |w|``: the scale with the least squared error.

    XNOR-Net (Rastegari et al., 2016, arXiv:1603.05279, section 3.1) derives it, and ParetoQ starts from it at 1 bit.

    Attributes
    ----------
    allowed_bits : sequence of int
        1.

    Notes
    -----
    The sign of 0 is positive. A block of nothing but 0 gets levels next to 0.
    """

    sources: ClassVar[tuple[str, ...]] = (*Quantizer.sources, "qbench.quantizers.table")
    allowed_bits: ClassVar[range | tuple[int, ...]] = (1,)

    def levels(self, bits: int) -> LevelTable:
        """Return -1 and 1."""
        return LevelTable(bits, (-1.0, 1.0), "binary")

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the mean magnitudes; shapes as in `Quantizer.choose_qparams`."""
        from qbench.quantizers.table import keep_nothing

        mean = blocks.abs().mean(dim=1, keepdim=True)
        return keep_nothing(QParams.from_range(-mean, mean, grid), blocks, grid)

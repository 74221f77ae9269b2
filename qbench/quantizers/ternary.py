"""Three levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.quant.levels import LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.table import TableQuantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


class Ternary(TableQuantizer):
    """A negative level, 0 and a positive one; five codes share a byte, so that a weight takes 1.6 bits.

    Attributes
    ----------
    allowed_bits : sequence of int
        2, the bits of a code before it is packed.
    range : str
        ``mean``: the levels are ``+-mean |w|`` (BitNet b1.58, Ma et al., 2024, arXiv:2402.17764). ``absmax``: they are
        ``+-2/3`` of the largest magnitude, in the middle of the outer of three equal parts (ParetoQ, Liu et al., 2025,
        arXiv:2502.02631, at 1.58 bits). ``mse``: as ``absmax``, on the smaller range with the least squared error.

    Notes
    -----
    ``mean`` is the default: it is what ternary weights are known by, and needs no search. ``absmax`` is made to be
    trained from: the largest weight of a long row decides, and rounding to nearest then leaves most weights at 0.
    """

    allowed_bits: ClassVar[tuple[int, ...]] = (2,)

    range: Literal["mean", "absmax", "mse"] = "mean"  # type: ignore[assignment]

    def levels(self, bits: int) -> LevelTable:
        """Return -1, 0 and 1 times the mean, or -2/3, 0 and 2/3 of the range."""
        if self.range == "mean":
            return LevelTable(bits, (-1.0, 0.0, 1.0), "ternary")
        return LevelTable(bits, (-1 / 1.5, 0.0, 1 / 1.5), "ternary", range_end=1.0)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the scales of the chosen range; shapes as in `Quantizer.choose_qparams`."""
        if self.range != "mean":
            return super().choose_qparams(blocks, grid)
        mean = blocks.abs().mean(dim=1, keepdim=True)
        return QParams.from_range(-mean, mean, grid)

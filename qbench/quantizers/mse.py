"""Range rule: the shrunk range with the least rounding error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.grid import IntegerGrid


class MeanSquaredError(Quantizer):
    """Shrink the full range in even steps and keep, block by block, the one with the least ``sum |w_q - w|^p``.

    Attributes
    ----------
    p : float
        The norm. 2 is the mean squared error; GPTQ's and BRECQ's "mse" searches use 2.4.
    candidates : int
        Ranges tried: the full one, and ``candidates - 1`` smaller ones at even distances.
    smallest : float
        The range that the steps lead to (itself not tried), as a share of the full one.

    Notes
    -----
    With ``p=2.4`` this is the search of GPTQ's reference code (80 steps of 1 %). Ties keep the wider range.
    """

    p: Annotated[float, Field(gt=0)] = 2.0
    candidates: Annotated[int, Field(ge=1)] = 80
    smallest: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def choose_qparams(self, blocks: Tensor, grid: IntegerGrid) -> QParams:
        """Return the parameters of the best shrunk range; shapes as in `Quantizer.choose_qparams`."""
        low, high = blocks.aminmax(dim=1, keepdim=True)
        best = QParams.from_range(low, high, grid)
        least = self._error(blocks, best, grid)
        for step in range(1, self.candidates):
            share = 1 - step * (1 - self.smallest) / self.candidates
            candidate = QParams.from_range(low * share, high * share, grid)
            error = self._error(blocks, candidate, grid)
            better = error < least
            least = error.where(better, least)
            best = QParams(
                candidate.scale.where(better, best.scale), candidate.zero_point.where(better, best.zero_point)
            )
        return best

    def _error(self, blocks: Tensor, params: QParams, grid: IntegerGrid) -> Tensor:
        codes = ((blocks / params.scale).round_() + params.zero_point).clamp_(grid.quant_min, grid.quant_max)
        difference = codes.sub_(params.zero_point).mul_(params.scale).sub_(blocks)
        # pow is an order of magnitude slower than a product
        powered = difference.square_() if self.p == 2 else difference.abs_().pow_(self.p)
        return powered.sum(dim=1, keepdim=True)

"""Range rule: a percentile of the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from qbench.quant.qparams import QParams
from qbench.quantizers.base import IntegerQuantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


class Percentile(IntegerQuantizer):
    """Clip the range at a percentile: of ``|w|`` on a symmetric grid, of ``w`` at either end on an asymmetric one.

    Attributes
    ----------
    q : float
        The percentile, in percent. An asymmetric range reaches from the ``100 - q``-th to the ``q``-th, so that each
        end loses as large a share; 100 is the full range.

    Notes
    -----
    Percentiles lie on straight lines between the sorted weights, as numpy's do. Where an end of the range would be 0
    though the block is not (most of its weights are 0), that end is not clipped.
    """

    q: Annotated[float, Field(gt=50, le=100)] = 99.9

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the parameters of the clipped range; shapes as in `Quantizer.choose_qparams`."""
        if self.symmetric:
            high = self._upper_end(blocks.abs())
            return QParams.from_range(-high, high, grid)
        return QParams.from_range(-self._upper_end(-blocks), self._upper_end(blocks), grid)

    def _upper_end(self, blocks: Tensor) -> Tensor:
        # torch.quantile takes no more than 2^24 weights.
        place = (blocks.shape[1] - 1) * self.q / 100
        below, largest = math.floor(place), blocks.amax(dim=1, keepdim=True)
        end = blocks.kthvalue(below + 1, dim=1, keepdim=True).values
        if place > below:
            end = end + (blocks.kthvalue(below + 2, dim=1, keepdim=True).values - end) * (place - below)
        return end.where(end > 0, largest)

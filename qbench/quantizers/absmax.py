"""Range rule: the whole range of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbench.quant.qparams import QParams
from qbench.quantizers.base import IntegerQuantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


class AbsMax(IntegerQuantizer):
    """No weight is clipped: the range is the block's minimum to maximum (symmetric: its largest magnitude)."""

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the parameters of the block's full range; shapes as in `Quantizer.choose_qparams`."""
        return QParams.from_blocks(blocks, grid)

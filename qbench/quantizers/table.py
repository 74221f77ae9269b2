"""What quantizers with fixed levels share: a range rule and what becomes of blocks of nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.quant.levels import LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels

# No weight of use is as small, and its products with levels are normal numbers still.
NOTHING = 2.0**-100


class TableQuantizer(Quantizer):
    """Base of the quantizers with fixed levels; a subclass writes `levels`, which returns a `LevelTable`.

    Attributes
    ----------
    range : str
        ``absmax``: the end of the levels is laid on the block's largest magnitude; ``mse``: on the smaller one with
        the least squared error, searched in 80 steps as by the quantizer `mse`.
    """

    sources: ClassVar[tuple[str, ...]] = (*Quantizer.sources, "qbench.quantizers.range_search")

    range: Literal["absmax", "mse"] = "absmax"

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the scales of the chosen range; shapes as in `Quantizer.choose_qparams`."""
        if self.range == "mse":
            from qbench.quantizers.range_search import best_shrunk_range

            return keep_nothing(best_shrunk_range(blocks, grid), blocks, grid)
        return keep_nothing(QParams.from_blocks(blocks, grid), blocks, grid)


def keep_nothing(found: QParams, blocks: Tensor, grid: Levels) -> QParams:
    """Give blocks of nothing but 0 a scale next to 0, where 0 is no level.

    Parameters
    ----------
    found : QParams
        Scales of any blocks.
    blocks : Tensor of shape (n_blocks, block_numel)
        Their weights.
    grid : Levels
        Their levels.
    """
    if not isinstance(grid, LevelTable) or 0.0 in grid.values:
        return found
    empty = (blocks == 0).all(dim=1, keepdim=True)
    return QParams(found.scale.masked_fill(empty, NOTHING), found.zero_point)

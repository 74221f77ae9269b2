"""Range rule: the shrunk range with the least rounding error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.quantizers.base import IntegerQuantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels
    from qbench.quant.qparams import QParams


class MeanSquaredError(IntegerQuantizer):
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

    sources: ClassVar[tuple[str, ...]] = (*IntegerQuantizer.sources, "qbench.quantizers.range_search")

    p: Annotated[float, Field(gt=0)] = 2.0
    candidates: Annotated[int, Field(ge=1)] = 80
    smallest: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the parameters of the best shrunk range; shapes as in `Quantizer.choose_qparams`."""
        from qbench.quantizers.range_search import best_shrunk_range

        return best_shrunk_range(blocks, grid, p=self.p, candidates=self.candidates, smallest=self.smallest)

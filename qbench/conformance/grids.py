"""The grids that every method is tried on: integers of both kinds, a table, and codebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.quant.levels import Codebook, Levels, LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.base import Quantizer

if TYPE_CHECKING:
    from torch import Tensor


class UnevenTable(Quantizer):
    """Eight levels that lie closer around 0, over the block's largest magnitude."""

    allowed_bits: ClassVar[range | tuple[int, ...]] = (3,)

    def levels(self, bits: int) -> Levels:
        """Return the table."""
        return LevelTable(bits, (-1.0, -0.5, -0.25, -0.1, 0.0, 0.2, 0.5, 1.0), "uneven")

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the scale of the full range; shapes as in `Quantizer.choose_qparams`."""
        low, high = blocks.aminmax(dim=1, keepdim=True)
        return QParams.from_range(low, high, grid)


class QuantileCodebook(Quantizer):
    """Levels at the middle of equal shares of a row's weights."""

    allowed_bits: ClassVar[range | tuple[int, ...]] = range(1, 9)
    fixed_scales: ClassVar[str | None] = "the levels of a codebook are no multiples of a step size"

    def levels(self, bits: int) -> Levels:
        """Return how many levels a row has."""
        return Codebook(bits)

    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        """Return the quantiles; shapes as in `Quantizer.choose_table`."""
        import torch

        shares = (torch.arange(grid.count, dtype=blocks.dtype, device=blocks.device) + 0.5) / grid.count
        return blocks.quantile(shares, dim=1).T.contiguous()


@dataclass(frozen=True)
class GridKind:
    """A kind of grid.

    Attributes
    ----------
    name : str
        In a few words.
    quantizer : Quantizer
        Chooses it.
    bits : int
        Bits a code.
    """

    name: str
    quantizer: Quantizer
    bits: int


def grid_kinds() -> tuple[GridKind, ...]:
    """Return all kinds; the first is the plainest."""

    def absmax(**options: Any) -> Quantizer:
        return AbsMax.model_validate({"name": "absmax", **options})

    return (
        GridKind("integers", absmax(), 4),
        GridKind("integers with a zero point, in groups", absmax(symmetric=False, granularity={"per_group": 16}), 3),
        GridKind("integers in tiles", absmax(granularity={"per_block": [4, 16]}), 4),
        GridKind("a table", UnevenTable(name="uneven_table"), 3),
        GridKind("a codebook", QuantileCodebook(name="quantile_codebook"), 2),
    )

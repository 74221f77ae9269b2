"""Two quantizers that keep the contract: each broken one changes one thing of them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from qbench.quant.levels import Codebook, Levels
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer


class Sound(Quantizer):
    """Largest magnitude."""

    allowed_bits: ClassVar[range | tuple[int, ...]] = (2, 4)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        low, high = blocks.aminmax(dim=1, keepdim=True)
        return QParams.from_range(low, high, grid)


class OfCodebooks(Quantizer):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (2, 3)

    def levels(self, bits: int) -> Levels:
        return Codebook(bits)

    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        low, high = blocks.aminmax(dim=1, keepdim=True)
        return low + (high - low) * torch.arange(grid.count, dtype=blocks.dtype) / grid.quant_max

"""Range rule: a real zero point by half-quadratic splitting (HQQ)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams, ends_of
from qbench.quantizers.base import IntegerQuantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


class HalfQuadratic(IntegerQuantizer):
    """Half-quadratic quantization (Badri & Shaji, 2023): the scale of the full range, and the best real zero point.

    Minimises ``sum |w - w_q|^p`` with ``p < 1``, an error that forgives outliers, over the zero point z alone. An
    auxiliary error e splits the problem in two that have closed forms:

    - ``e = shrink(w - w_q)``, with ``shrink(x) = sign(x) max(|x| - |x|^(p-1) / beta, 0)``;
    - ``z = mean(code - (w - e) / scale)``, after which ``beta`` grows by `kappa`.

    Attributes
    ----------
    symmetric : bool
        False only: a symmetric grid has no zero point to be optimised.
    p : float
        The norm of the error.
    beta : float
        Weight of the splitting's penalty at the start. Not relative: it sees the weights in their own units.
    kappa : float
        Growth of `beta` an iteration.
    iterations : int
        Zero points tried after that of the full range.

    Notes
    -----
    The range is the block's minimum to maximum without 0, and the zero point is a float32 that is stored as one. A
    block is left alone when its error no longer falls, and keeps the zero point with the least. The published code
    differs: it stops all blocks together, by the mean of ``|w - w_q|`` over the weight, keeps the zero point that came
    last, and rounds the one it starts from at 4 bits.
    """

    # With one bit the two levels are the ends of the range: a squared error above that of leaving all weights out.
    allowed_bits: ClassVar[range | tuple[int, ...]] = range(2, 9)

    symmetric: bool = False
    p: Annotated[float, Field(gt=0, le=1)] = 0.7
    beta: Annotated[float, Field(gt=0)] = 10.0
    kappa: Annotated[float, Field(ge=1)] = 1.01
    iterations: Annotated[int, Field(ge=1)] = 20

    @model_validator(mode="after")
    def _a_zero_point_is_needed(self) -> Self:
        if self.symmetric:
            raise ValueError("hqq optimises the zero point, and a symmetric grid has none (allowed: symmetric: false)")
        return self

    def levels(self, bits: int) -> Levels:
        """Return the unsigned integers with a real zero point."""
        return IntegerGrid(bits, symmetric=False, real_zero_point=True)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return scale and best zero point; shapes as in `Quantizer.choose_qparams`."""
        scale, zero_point, moving = _full_range(blocks, grid)
        best, least, beta = zero_point, scale.new_full(scale.shape, float("inf")), self.beta
        for iteration in range(self.iterations + 1):
            codes = (blocks / scale).add_(zero_point).round_().clamp_(grid.quant_min, grid.quant_max)
            error = blocks - (codes - zero_point) * scale
            size = error.abs().pow_(self.p).sum(dim=1, keepdim=True)
            moving = moving & (size < least)
            best, least = zero_point.where(moving, best), size.where(moving, least)
            if iteration == self.iterations or not moving.any():
                break
            auxiliary = _shrink(error, beta, self.p)
            zero_point = (codes - (blocks - auxiliary) / scale).mean(dim=1, keepdim=True).where(moving, zero_point)
            beta *= self.kappa
        return QParams(scale, best)


def _full_range(blocks: Tensor, grid: Levels) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale and zero point of the full range, and which blocks have one that can be made better."""
    low, high = ends_of(blocks)
    steps = grid.quant_max - grid.quant_min
    scale = high / steps - low / steps
    # The quotient low / scale of a narrow range far from 0 would not leave a position any digits.
    wide = scale > high.abs().maximum(low.abs()) * 1e-4
    flat = QParams.from_range(low, high, grid)
    # On the range that is laid over a block of nothing, a real zero point has no reason to be whole.
    zeros = flat.zero_points().masked_fill((low == 0) & (high == 0), 0.0)
    return scale.where(wide, flat.scale), (-low / scale).where(wide, zeros), wide


def _shrink(error: Tensor, beta: float, p: float) -> Tensor:
    size = error.abs()
    return (size - size.pow(p - 1) / beta).clamp_(min=0).mul_(error.sign())

"""Range rule: none; integers times a step that is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels

_SMALLEST_NORMAL = 1.1754943508222875e-38


class Lattice(Quantizer):
    """Signed integers times a step that depends neither on the bits nor on the largest weight.

    Attributes
    ----------
    step : float
        The distance of neighbouring levels.
    unit : str
        What `step` is counted in: ``rms``, the root mean square of the block's weights; ``absolute``, the weights' own
        unit.

    Notes
    -----
    Bits bound the codes and nothing else: at 8 of them the levels end 128 steps below 0 and 127 above, and weights
    beyond are clipped. A block of nothing but 0 has no root mean square: its step is `step` itself.
    """

    step: Annotated[float, Field(gt=0)] = 0.5
    unit: Literal["rms", "absolute"] = "rms"

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the step of each block; shapes as in `Quantizer.choose_qparams`."""
        scale = blocks.new_full((len(blocks), 1), self.step)
        if self.unit == "rms":
            # In float64: the squares of weights that float32 holds need not be numbers of float32.
            mean = blocks.double().square().mean(dim=1, keepdim=True).sqrt().to(scale.dtype)
            scale = scale * mean.masked_fill(mean == 0, 1.0)
        return QParams(scale.clamp(min=_SMALLEST_NORMAL))

"""The quantizer `sigma_clip`: levels that lie close where weights are many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.plugin import Levels, LevelTable, QParams, Quantizer

if TYPE_CHECKING:
    from torch import Tensor


class SigmaClip(Quantizer):
    """Levels that are symmetric around 0 and grow apart, with the range clipped at so many standard deviations.

    Attributes
    ----------
    sigmas : float
        End of the range, in standard deviations of the block; never beyond its largest magnitude.
    growth : float
        How much wider each step is than the one before it, away from 0. At 1 the levels are even.
    """

    version: ClassVar[int] = 1
    # One bit would be one level on either side and no 0 between.
    allowed_bits: ClassVar[range] = range(2, 9)
    fixed_scales: ClassVar[str | None] = "its scale follows from the standard deviation"

    sigmas: Annotated[float, Field(gt=0)] = 3.0
    growth: Annotated[float, Field(ge=1, le=2)] = 1.1

    def levels(self, bits: int) -> Levels:
        """Return ``2^b - 1`` levels from -1 to 1, 0 among them; one code is not used."""
        ends = [0.0]
        for step in range(2 ** (bits - 1) - 1):
            ends.append(ends[-1] + self.growth**step)
        positive = [end / ends[-1] for end in ends[1:]]
        return LevelTable(bits, (*(-value for value in reversed(positive)), 0.0, *positive), name="sigma_clip")

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the scale that lays the last level on the end of the range."""
        # Around 0 and not around the mean: the levels are.
        sigma = blocks.square().mean(dim=1, keepdim=True).sqrt()
        end = (self.sigmas * sigma).minimum(blocks.abs().amax(dim=1, keepdim=True))
        return QParams.from_range(-end, end, grid)

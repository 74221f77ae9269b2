"""NVFP4."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qbench.quant.levels import LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.float_format import float_levels
from qbench.quantizers.granularity import Granularity, GranularityField
from qbench.quantizers.microscaling import FixedGroups

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels
    from qbench.quant.scale_format import ScaleFormat


class NVFP4(FixedGroups):
    """NVIDIA's NVFP4: E2M1 in groups of 16, with scales in E4M3 times one float32 for the weight.

    A group's scale is ``max |w| / 6``, rounded to the nearest ``t * (number of E4M3)``, where the scale of the weight,
    ``t = max |w| / (6 * 448)`` over all of it, lays the largest of them on the largest of E4M3.

    Attributes
    ----------
    allowed_bits : sequence of int
        4.
    fixed_scales : str
        Why step sizes are not learned.
    shares_scale_unit : bool
        True, for t.
    group : int
        16.
    granularity : Granularity
        Groups of 16.

    Notes
    -----
    Scales are no smaller than ``2^-6 t``, the smallest normal number of E4M3; others use the subnormal ones too. That
    tells them apart only in groups whose largest weight is below 1/28672 of the largest of all.
    """

    sources: ClassVar[tuple[str, ...]] = (*FixedGroups.sources, "qbench.quantizers.table")
    allowed_bits: ClassVar[range | tuple[int, ...]] = (4,)
    fixed_scales: ClassVar[str | None] = "the scale of a group is one of E4M3's 8-bit numbers"
    shares_scale_unit: ClassVar[bool] = True
    group: ClassVar[int] = 16

    granularity: GranularityField = Granularity(kind="per_group", group_size=16)

    def levels(self, bits: int) -> LevelTable:
        """Return the numbers of E2M1."""
        return float_levels("e2m1")

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return a sixth of the largest magnitudes; shapes as in `Quantizer.choose_qparams`."""
        from qbench.quantizers.table import NOTHING

        # A group of nothing must not count among the largest.
        return QParams((blocks.abs().amax(dim=1, keepdim=True) / grid.reach).clamp(min=NOTHING))

    def scale_format(self, scale: Tensor) -> ScaleFormat:
        """Return E4M3 times the scale of the weight; see `Quantizer.scale_format`."""
        from qbench.quant.scale_format import E4M3_MAX, ScaledE4M3

        return ScaledE4M3(float(scale.max() / E4M3_MAX))

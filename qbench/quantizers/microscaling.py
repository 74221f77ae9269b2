"""What the microscaling formats share: small groups, each with a power of two for a scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from qbench.quant.levels import LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer
from qbench.quantizers.granularity import Granularity, GranularityField

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels
    from qbench.quant.scale_format import ScaleFormat


class FixedGroups(Quantizer):
    """Base of the formats that say themselves which weights share a scale.

    Attributes
    ----------
    group : int
        Inputs a group.
    """

    sources: ClassVar[tuple[str, ...]] = (*Quantizer.sources, "qbench.quantizers.float_format")
    group: ClassVar[int] = 32

    @model_validator(mode="after")
    def _groups_are_part_of_the_format(self) -> Self:
        given = self.granularity
        if given.kind != "per_group" or given.group_size != self.group:
            raise ValueError(
                f"groups of {self.group} are part of the format {self.name} (allowed: granularity: "
                f"{{per_group: {self.group}}}, which is the default)"
            )
        return self


class Microscaling(FixedGroups):
    """Base of the OCP microscaling formats (version 1.0, section 6.3): groups of 32 with a scale in E8M0.

    The scale of a group is ``2^(floor(log2 max |w|) - emax)``, with the exponent emax of the largest number of the
    format. A weight beyond that number, by a factor below 2, goes to it.

    Attributes
    ----------
    fixed_scales : str
        Why step sizes are not learned.
    granularity : Granularity
        Groups of 32.
    """

    fixed_scales: ClassVar[str | None] = "the scale of a group is a power of two"

    granularity: GranularityField = Granularity(kind="per_group", group_size=32)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Return the powers of two; shapes as in `Quantizer.choose_qparams`."""
        import torch

        assert isinstance(grid, LevelTable)
        largest_exponent = math.frexp(grid.values[-1])[1]
        exponent = torch.frexp(blocks.abs().amax(dim=1, keepdim=True)).exponent - largest_exponent
        # By its bits, which is exact everywhere. The lowest exponent of E8M0, -127, is no normal float32.
        bits = exponent.clamp(-126, 127).int().add(127).bitwise_left_shift(23)
        return QParams(bits.view(torch.float32).to(blocks.dtype))

    def scale_format(self, scale: Tensor) -> ScaleFormat:
        """Return E8M0; see `Quantizer.scale_format`."""
        from qbench.quant.scale_format import PowerOfTwo

        return PowerOfTwo()

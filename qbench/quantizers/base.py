"""What every quantizer is: a grid with a range rule, applied block by block."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from qbench.quant.grid import Convention, IntegerGrid
from qbench.quantizers.activations import Activations
from qbench.quantizers.granularity import Granularity, GranularityField
from qbench.quantizers.layer_bits import LayerBitsField
from qbench.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels
    from qbench.quant.qparams import QParams
    from qbench.quant.scale_format import ScaleFormat

ALL_BITS = range(1, 9)


class Quantizer(Spec):
    """Base of the quantizers; a subclass adds its options as fields and writes `choose_qparams`.

    Attributes
    ----------
    granularity : Granularity
        Which weights share a scale; blocks are cut by the caller.
    first_last : str
        What becomes of the first and the last of the quantized layers, in forward order: ``same`` as the others;
        ``8bit``, on the same grid in 8 bits; ``float``, left in floating point and counted so in effective bits.
    activations : Activations or None
        How the inputs of the quantized layers are quantized; None where they are left as they are.
    layer_bits : LayerBits or None
        Bits of single layers' weights in place of the cell's: a mapping of their names, or of shell patterns that fit
        names, to bits. The first one that fits a layer counts, one that fits none is an error, and what ``first_last``
        says of the first and the last layer goes before.
    allowed_bits : sequence of int
        The bits that its grid has; a cell with others is skipped.
    fixed_scales : str or None
        Why step sizes cannot be learned on this grid; None where they can. Cells of methods that learn them are
        skipped with this reason.
    shares_scale_unit : bool
        Whether a scale is stored relative to the other scales of the weight, so that none can be chosen alone.
    sees_inputs : bool
        Whether `choose_qparams` is also given ``importance``, the second moments ``E[x_j^2]`` of the inputs that the
        weights of a block meet, in the shape of the blocks.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.layer_inputs",
        "qbench.quant.activation",
        "qbench.quant.block_grid",
        "qbench.quant.fused",
        "qbench.quant.grid",
        "qbench.quant.levels",
        "qbench.quant.packing",
        "qbench.quant.qparams",
        "qbench.quant.scale_format",
        "qbench.quant.snapping",
        "qbench.quant.ste",
        "qbench.quantizers.activations",
        "qbench.quantizers.granularity",
        "qbench.quantizers.layer_bits",
        "qbench.quantizers.layout",
        "qbench.quantizers.range_search",
    )
    allowed_bits: ClassVar[range | tuple[int, ...]] = range(2, 9)
    fixed_scales: ClassVar[str | None] = None
    shares_scale_unit: ClassVar[bool] = False
    sees_inputs: ClassVar[bool] = False

    granularity: GranularityField = Granularity(kind="per_channel")
    first_last: Literal["same", "8bit", "float"] = "same"
    activations: Activations | None = None
    layer_bits: LayerBitsField | None = None

    @model_validator(mode="after")
    def _other_bits_need_their_grid(self) -> Self:
        if self.first_last == "8bit" and (reason := self.refuses(8)) is not None:
            raise ValueError(f"first_last 8bit is not to be had: {reason}; same and float are")
        for pattern, bits in () if self.layer_bits is None else self.layer_bits.patterns:
            if (reason := self.refuses(bits)) is not None:
                raise ValueError(f"layer_bits of {pattern!r} are not to be had: {reason}")
        return self

    def label(self) -> str:
        """Return the name with granularity and every other option that is not at its default."""
        options = [str(self.granularity), *self.changed_options(but={"granularity"})]
        return f"{self.name}[{','.join(options)}]"

    def changed_options(self, but: Collection[str] = ()) -> list[str]:
        """Return ``option=value`` as `Spec.changed_options` does, and activations in short: ``a8``, ``a4-static``."""
        options = super().changed_options(but={"activations", *but})
        return options if self.activations is None or "activations" in but else [*options, str(self.activations)]

    def refuses(self, bits: int) -> str | None:
        """Return why there is no grid of that many bits; None where there is one."""
        if bits in self.allowed_bits:
            return None
        allowed = self.allowed_bits
        listed = (
            f"{allowed[0]} to {allowed[-1]}"
            if len(allowed) > 2 and isinstance(allowed, range)
            else " or ".join(str(number) for number in allowed)
        )
        return f"{self.name} has no grid of {bits} {'bit' if bits == 1 else 'bits'} (allowed: {listed})"

    def levels(self, bits: int) -> Levels:
        """Return the levels of a code; by default the signed integers, see `qbench.quant.grid.IntegerGrid`."""
        return IntegerGrid(bits, symmetric=True)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        """Choose scale and zero point of each block.

        Parameters
        ----------
        blocks : Tensor of shape (n_blocks, block_numel), float32
            Weights that share a scale, a block a row.
        grid : Levels
            The levels to be scaled, those of `levels`.

        Returns
        -------
        QParams
            Scale and zero point of shape (n_blocks, 1).
        """
        raise NotImplementedError

    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        """Choose the levels of each block; asked in place of `choose_qparams` where the levels are a `Codebook`.

        Parameters
        ----------
        blocks : Tensor of shape (n_blocks, block_numel), float32
            Weights that share their levels, a block a row.
        grid : Codebook
            Tells how many there are.

        Returns
        -------
        Tensor of shape (n_blocks, 2^bits)
            Rising in each row.
        """
        raise NotImplementedError

    def scale_format(self, scale: Tensor) -> ScaleFormat:
        """Return what scales are stored in; they are rounded to it.

        Parameters
        ----------
        scale : Tensor of shape (row blocks, n_groups)
            All scales of a weight as they were chosen.
        """
        from qbench.quant.scale_format import FLOAT32

        return FLOAT32


class IntegerQuantizer(Quantizer):
    """Base of the quantizers with integer levels, of either symmetry and any convention.

    Attributes
    ----------
    symmetric : bool
        Whether the levels lie around 0; otherwise they follow the block's range with a zero point.
    convention : str
        What a symmetric grid does with its odd level: ``full_range``, ``narrow_range`` or ``larger_side`` (see
        `qbench.quant.grid.IntegerGrid`). 2-bit numbers of different conventions do not compare.
    """

    allowed_bits: ClassVar[range | tuple[int, ...]] = ALL_BITS

    symmetric: bool = True
    convention: Convention = "full_range"

    @model_validator(mode="after")
    def _conventions_are_of_symmetric_grids(self) -> Self:
        if not self.symmetric and self.convention != "full_range":
            raise ValueError(f"convention {self.convention} belongs to symmetric grids, and symmetric is false")
        return self

    def label(self) -> str:
        """Return the name with granularity, symmetry and every other option that is not at its default."""
        options = [str(self.granularity), *([] if self.symmetric else ["asymmetric"])]
        options += self.changed_options(but={"granularity", "symmetric"})
        return f"{self.name}[{','.join(options)}]"

    def refuses(self, bits: int) -> str | None:
        """Return why there is no grid of that many bits; see `Quantizer.refuses`."""
        if bits == 1 and self.symmetric and self.convention != "larger_side":
            return (
                f"a symmetric integer grid has levels on one side of 0 only at 1 bit (allowed: symmetric: false, "
                f"convention: larger_side, or the quantizer binary), and {self.name} is symmetric"
            )
        return super().refuses(bits)

    def levels(self, bits: int) -> Levels:
        """Return the integers of the asked symmetry and convention."""
        return IntegerGrid(bits, self.symmetric, self.convention)

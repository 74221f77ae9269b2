"""What every quantizer is: a grid with a range rule, applied block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, PositiveInt, model_validator

from qbench.quant.grid import Convention
from qbench.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.grid import IntegerGrid
    from qbench.quant.qparams import QParams


class Granularity(BaseModel):
    """Which weights share one scale.

    Attributes
    ----------
    kind : str
        ``per_tensor``: one scale a weight; ``per_channel``: one a row; ``per_group``: one for each `group_size`
        consecutive inputs of a row (the last group of a row may be shorter).
    group_size : int or None
        Inputs a group; only with ``per_group``.

    Examples
    --------
    A weight of shape (256, 344) gets scales of shape (1, 1), (256, 1), and with groups of 64 (256, 6).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["per_tensor", "per_channel", "per_group"]
    group_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _groups_have_a_size(self) -> Granularity:
        if (self.kind == "per_group") != (self.group_size is not None):
            raise ValueError("group_size belongs to per_group, and per_group needs it")
        return self

    def __str__(self) -> str:
        return self.kind if self.group_size is None else f"g{self.group_size}"


def _parse_granularity(value: Any) -> Any:
    if isinstance(value, Granularity):
        return value
    if value in ("per_tensor", "per_channel"):
        return Granularity(kind=value)
    if (
        isinstance(value, dict)
        and set(value) == {"per_group"}
        and type(value["per_group"]) is int
        and value["per_group"] > 0
    ):
        return Granularity(kind="per_group", group_size=value["per_group"])
    raise ValueError(
        f"{value!r} is not a granularity (allowed: per_tensor, per_channel, {{per_group: N}} with N at least 1)"
    )


def _dump_granularity(value: Granularity) -> Any:
    return value.kind if value.group_size is None else {value.kind: value.group_size}


GranularityField = Annotated[Granularity, BeforeValidator(_parse_granularity), PlainSerializer(_dump_granularity)]


class Quantizer(Spec):
    """Base of the quantizers; a subclass adds its options as fields and writes `choose_qparams`.

    Attributes
    ----------
    granularity : Granularity
        Which weights share a scale; blocks are cut by the caller.
    symmetric : bool
        Whether the levels lie around 0; otherwise they follow the block's range with a zero point.
    convention : str
        What a symmetric grid does with its odd level: ``full_range``, ``narrow_range`` or ``larger_side`` (see
        `qbench.quant.grid.IntegerGrid`). 2-bit numbers of different conventions do not compare.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.quant.affine",
        "qbench.quant.grid",
        "qbench.quant.qparams",
        "qbench.quantizers.layout",
    )

    granularity: GranularityField = Granularity(kind="per_channel")
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

    def choose_qparams(self, blocks: Tensor, grid: IntegerGrid) -> QParams:
        """Choose scale and zero point of each block.

        Parameters
        ----------
        blocks : Tensor of shape (n_blocks, block_numel), float32
            Weights that share a scale, a block a row.
        grid : IntegerGrid
            The levels to be scaled.

        Returns
        -------
        QParams
            Scale and zero point of shape (n_blocks, 1).
        """
        raise NotImplementedError

"""Which weights share one scale, as a suite says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, PositiveInt, model_validator

_ALLOWED = "per_tensor, per_channel, {per_group: N} or {per_block: [R, C]} with N, R and C at least 1"


class Granularity(BaseModel):
    """Which weights share one scale.

    Attributes
    ----------
    kind : str
        ``per_tensor``: one scale a weight; ``per_channel``: one a row; ``per_group``: one for each `group_size`
        consecutive inputs of a row; ``per_block``: one for each tile of `block_rows` rows and `group_size` inputs.
        The last group of a row and the last tiles may be smaller.
    group_size : int or None
        Inputs a group or a tile; only with these two.
    block_rows : int or None
        Rows a tile; only with ``per_block``.

    Examples
    --------
    A weight of shape (256, 344) gets scales of shape (1, 1), (256, 1), with groups of 64 (256, 6), and with tiles of
    16 x 64 (16, 6).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["per_tensor", "per_channel", "per_group", "per_block"]
    group_size: PositiveInt | None = None
    block_rows: PositiveInt | None = None

    @model_validator(mode="after")
    def _sizes_belong_to_the_kind(self) -> Granularity:
        if (self.kind in ("per_group", "per_block")) != (self.group_size is not None):
            raise ValueError("group_size belongs to per_group and per_block, and they need it")
        if (self.kind == "per_block") != (self.block_rows is not None):
            raise ValueError("block_rows belongs to per_block, and per_block needs it")
        return self

    def __str__(self) -> str:
        if self.kind == "per_block":
            return f"b{self.block_rows}x{self.group_size}"
        return self.kind if self.group_size is None else f"g{self.group_size}"


def _parse(value: Any) -> Any:
    if isinstance(value, Granularity):
        return value
    if value in ("per_tensor", "per_channel"):
        return Granularity(kind=value)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, size),) = value.items()
        if kind == "per_group" and _is_size(size):
            return Granularity(kind=kind, group_size=size)
        if kind == "per_block" and isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_size, size)):
            return Granularity(kind=kind, block_rows=size[0], group_size=size[1])
    raise ValueError(f"{value!r} is not a granularity (allowed: {_ALLOWED})")


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _dump(value: Granularity) -> Any:
    if value.kind == "per_block":
        return {value.kind: [value.block_rows, value.group_size]}
    return value.kind if value.group_size is None else {value.kind: value.group_size}


GranularityField = Annotated[Granularity, BeforeValidator(_parse), PlainSerializer(_dump)]

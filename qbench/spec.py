"""The base of everything a suite file can name: a frozen set of options whose fields are the YAML keys."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Options of a model, a quantizer or a method, all resolved.

    Attributes
    ----------
    name : str
        The name in the registry.
    version : int
        Raised by the author whenever the numbers change; part of a cell's identity.
    sources : tuple of str
        Modules, beside the class's own, whose source is part of a cell's identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: ClassVar[int] = 1
    sources: ClassVar[tuple[str, ...]] = ()

    name: str

    def control(self) -> Spec | None:
        """Return what a row of this method must be read against beside full precision; None for most.

        A method that trains the model returns the method that trains it as much without quantizing.
        """
        return None

    def refuses(self, bits: int) -> str | None:
        """Return why this, as a quantizer, has no grid of so many bits; None where it has."""
        return None

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why this, as a method, cannot work on a quantizer's grids; None where it can."""
        return None

    def refuses_method(self, method: Spec) -> str | None:
        """Return why this, as a model, cannot be quantized by a method with its options; None where it can."""
        return None

    def refuses_quantizer(self, quantizer: Spec, bits: int) -> str | None:
        """Return why this, as a model, cannot take a quantizer's grid of so many bits; None where it can."""
        return None

    def label(self) -> str:
        """Return the name with every option that is not at its default, such as ``gptq[act_order=false]``."""
        options = self.changed_options()
        return f"{self.name}[{','.join(options)}]" if options else self.name

    def changed_options(self, but: Collection[str] = ()) -> list[str]:
        """Return ``option=value`` of every option that is not at its default, except those named in `but`."""
        return [
            f"{field}={_plain(getattr(self, field))}"
            for field, info in type(self).model_fields.items()
            if field not in {"name", *but}
            and getattr(self, field) != info.get_default(call_default_factory=True, validated_data={})
        ]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    # Where a file lies is no part of what it is.
    return value.name if isinstance(value, Path) else str(value)

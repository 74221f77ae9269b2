"""How the inputs of the quantized layers are quantized, as a suite says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from qbench.quant.grid import IntegerGrid


class Activations(BaseModel):
    """Fake quantization of what goes into each quantized layer.

    Attributes
    ----------
    bits : int
        Bits an input, 2 to 8.
    scale : str
        ``dynamic``: each call has a range of its own, the smallest to the largest input that it is given; ``static``:
        one range, found on the calibration data and fixed (LSQ learns its scale).
    granularity : str
        ``per_token``: one scale a token, for a convolution one a sample (an image); ``per_tensor``: one for everything
        that comes in together. By default per_token where the scale is dynamic, per_tensor where it is static.
    symmetric : bool
        Whether the levels lie around 0, as on the ``full_range`` grid of `qbench.quant.grid.IntegerGrid`; otherwise
        they are unsigned, and follow the range with a zero point.
    range : str
        How a static range is chosen: ``absmax``, all that was seen; ``mse``, the shrunk one with the least squared
        error; ``percentile``, what holds so many per cent of the inputs, by magnitude.
    percentile : float
        That share, in per cent; only with ``range: percentile``.

    Notes
    -----
    Inputs of Linear, Conv2d and transformers' Conv1D layers are quantized where they enter the layer, and nothing else
    in the model is. Layers that ``first_last`` keeps in 8 bits take inputs of 8 bits, and layers that it leaves in
    floating point take inputs as they are. 0 is always a level, so the zeros that a convolution pads with are exact.
    Dynamic ranges of ``per_tensor`` depend on what lies in one batch together, padding included; those of
    ``per_token`` do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bits: Annotated[int, Field(ge=2, le=8, strict=True)]
    scale: Literal["dynamic", "static"] = "dynamic"
    granularity: Literal["per_token", "per_tensor"] = "per_token"
    symmetric: Annotated[bool, Field(strict=True)] = False
    range: Literal["absmax", "mse", "percentile"] = "absmax"
    percentile: Annotated[float, Field(ge=50, le=100, strict=True)] = 99.9

    @model_validator(mode="before")
    @classmethod
    def _granularity_follows_the_scale(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("scale") == "static" and "granularity" not in given:
            return {**given, "granularity": "per_tensor"}
        return given

    @model_validator(mode="after")
    def _options_go_together(self) -> Activations:
        if self.scale == "static" and self.granularity == "per_token":
            raise ValueError(
                "scale: static fixes the range before any input is seen, and granularity: per_token asks for one of "
                "each token (allowed: granularity: per_tensor, or scale: dynamic)"
            )
        if self.scale == "dynamic" and self.range != "absmax":
            raise ValueError(
                f"range: {self.range} is found on calibration data, and scale: dynamic looks at none (allowed: range: "
                "absmax, or scale: static)"
            )
        if self.range != "percentile" and self.percentile != type(self).model_fields["percentile"].default:
            raise ValueError(f"percentile belongs to range: percentile, and range is {self.range}")
        return self

    def levels(self) -> IntegerGrid:
        """Return the integers that an input's code can be."""
        from qbench.quant.grid import IntegerGrid

        return IntegerGrid(self.bits, self.symmetric)

    def describe(self) -> str:
        """Return all of it in words, for records and tables."""
        kinds = {"absmax": "", "mse": " by mse", "percentile": f" by percentile {self.percentile:g}"}
        symmetry = "symmetric" if self.symmetric else "asymmetric"
        return f"{self.bits} bits {self.scale} {self.granularity}{kinds[self.range]}, {symmetry}"

    def __str__(self) -> str:
        parts = [f"a{self.bits}"]
        if self.scale == "static":
            parts.append("static")
        elif self.granularity != "per_token":
            parts.append(self.granularity)
        if self.symmetric:
            parts.append("symmetric")
        if self.range != "absmax":
            parts.append(f"percentile{self.percentile:g}" if self.range == "percentile" else self.range)
        return "-".join(parts)

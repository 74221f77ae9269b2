"""A codebook for each channel, by k-means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from qbench.quant.levels import Codebook
from qbench.quantizers.base import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


class KMeans(Quantizer):
    """2^b levels of each channel's own, at the means of the weights that go to them: one-dimensional k-means.

    Two starts: levels as dense as the cube root of the density of the channel's weights, and the levels that the
    quantizer `mse` has. After five iterations of Lloyd's algorithm the one of the least squared error goes on: no error
    is above that of `mse`. From there a local search moves the places where levels begin, all of them at once, within
    windows that narrow from about a level's width, then among the places beside them; Lloyd's algorithm ends it.

    Attributes
    ----------
    fixed_scales : str
        Why step sizes are not learned.
    iterations : int
        At most so many of Lloyd's algorithm, fewer where no weight changes its level any more. The local search makes
        as many passes over each kind of windows, at most four; none at 0.

    Notes
    -----
    Deterministic: nothing is drawn. The search is local, so that the least error of all codebooks is not certain; tests
    hold the total within 2 % of an exact search's. Levels that no weight goes to stay where they are in Lloyd's
    algorithm, and lie beside their neighbours after the search. Codebooks are float32, 32 bits a level, which few
    channels of few weights pay back: see effective bits. Deep compression (Han et al., 2016, arXiv:1510.00149) has one
    codebook a layer and trains it.
    """

    sources: ClassVar[tuple[str, ...]] = (*Quantizer.sources, "qbench.quantizers.lloyd")
    fixed_scales: ClassVar[str | None] = "its levels are a codebook without a scale"

    iterations: Annotated[int, Field(ge=0)] = 100

    @model_validator(mode="after")
    def _codebooks_are_of_channels(self) -> Self:
        if self.granularity.kind not in ("per_tensor", "per_channel"):
            raise ValueError(
                f"a codebook is too large to be stored for each group (allowed: granularity: per_channel or "
                f"per_tensor, given {self.granularity})"
            )
        return self

    def levels(self, bits: int) -> Levels:
        """Return a codebook of so many bits."""
        return Codebook(bits)

    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        """Return the means; shapes as in `Quantizer.choose_table`."""
        from qbench.quantizers.lloyd import best_means

        return best_means(blocks, grid.bits, self.iterations)

"""Training with random directions: STE-QAT's way without its information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qbench.methods.locus import LocusAblation

if TYPE_CHECKING:
    from qbench.methods.latent import QuantizedWeight
    from qbench.methods.problem import Problem


class RandomGradient(LocusAblation):
    """``w <- w - rate * |g| d``: g is the gradient of a layer at its levels, d a random direction, new at each step.

    Notes
    -----
    Each layer's direction is that of a vector of independent normal numbers. Norms are those of `ste_qat`'s gradients,
    before they are clipped and the optimizer makes steps of them: AdamW's steps have one size in any case.
    """

    def weights(self, problem: Problem) -> Sequence[QuantizedWeight]:
        """Return latent weights that move in directions from the stream ``gradient-direction``."""
        from qbench.methods.locus_weights import RandomDirectionWeight, generator_of

        generator = generator_of(problem, "gradient-direction")
        return [RandomDirectionWeight(layer, generator) for layer in problem.layers]

"""Training with the gradient at the latent weights: STE-QAT without the displacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qbench.methods.locus import LocusAblation

if TYPE_CHECKING:
    from qbench.methods.latent import QuantizedWeight
    from qbench.methods.problem import Problem


class LatentGradient(LocusAblation):
    """``w <- w - rate * grad L(w)``, and the nearest levels of the last w on the given grid.

    The model computes with the latent weight, and sees its levels only when the training is over. What `ste_qat` gains
    beyond this comes of where it takes its gradient: all else is the same.
    """

    def weights(self, problem: Problem) -> Sequence[QuantizedWeight]:
        """Return latent weights that the model computes with."""
        from qbench.methods.locus_weights import PlainWeight

        return [PlainWeight(layer) for layer in problem.layers]

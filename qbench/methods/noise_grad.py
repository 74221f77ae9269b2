"""Training with the gradient at a random point of the cell: the displacement of STE-QAT without the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qbench.methods.locus import LocusAblation

if TYPE_CHECKING:
    from qbench.methods.latent import QuantizedWeight
    from qbench.methods.problem import Problem


class NoiseGradient(LocusAblation):
    """``w <- w - rate * grad L(w + u)``, ``u ~ U(-step/2, step/2)`` for each weight, drawn anew at each step.

    Notes
    -----
    The step is the distance of the levels at the weight: on integers the scale, on other levels the width of the cell
    of the nearest level. Rounding displaces a weight within the range by as much at most, and by more where it is
    clipped; the noise does not.
    """

    def weights(self, problem: Problem) -> Sequence[QuantizedWeight]:
        """Return latent weights that the model computes with, under noise from the stream ``gradient-noise``."""
        from qbench.methods.locus_weights import NoisyWeight, generator_of

        generator = generator_of(problem, "gradient-noise")
        return [NoisyWeight(layer, generator) for layer in problem.layers]

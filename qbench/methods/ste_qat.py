"""STE-QAT: train latent weights with the gradient taken at the quantized weights, on a fixed grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qbench.methods.qat_options import QuantizationAwareTraining

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class StraightThroughQAT(QuantizationAwareTraining):
    """``w <- w - rate * grad L(Q(w))`` (Bengio et al., 2013, arXiv:1308.3432), with the scale frozen at the given grid.

    Attributes
    ----------
    gradient : str
        ``identity``: the gradient passes unchanged, as in the theory; ``masked``: clipped weights get none.
    """

    gradient: Literal["identity", "masked"] = "identity"

    def solve(self, problem: Problem) -> Solution:
        """Return the nearest codes of the trained latent weights; see `Method.solve`."""
        from qbench.methods.qat import StraightThroughWeight, train

        masked = self.gradient == "masked"
        return train(problem, self, lambda layer: StraightThroughWeight(layer, masked=masked))

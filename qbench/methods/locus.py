"""Methods that are STE-QAT but for where the gradient is taken, or what it is: the ablation of its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qbench.methods.qat_options import LatentTraining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbench.methods.latent import QuantizedWeight
    from qbench.methods.problem import Problem, Solution


class LocusAblation(LatentTraining):
    """Base: the loop, the budget and the data of `ste_qat`, on the given grid, and another gradient.

    The grid stays for the whole training, the gradient passes to the latent weight unchanged, and the nearest levels of
    the last latent weight are deployed.
    """

    sources: ClassVar[tuple[str, ...]] = (*LatentTraining.sources, "qbench.methods.locus_weights")

    def weights(self, problem: Problem) -> Sequence[QuantizedWeight]:
        """Return the latent weights of all target layers, which know what the model computes with."""
        raise NotImplementedError

    def solve(self, problem: Problem) -> Solution:
        """Return the nearest codes of the trained latent weights; see `Method.solve`."""
        from qbench.methods.qat import train

        return train(problem, self, self.weights(problem))

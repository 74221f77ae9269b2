"""STE-QAT: train latent weights with the gradient taken at the quantized weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.methods.qat_options import QuantizationAwareTraining
from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class StraightThroughQAT(QuantizationAwareTraining):
    """``w <- w - rate * grad L(Q(w))`` (Bengio et al., 2013, arXiv:1308.3432).

    Attributes
    ----------
    scale : str
        ``frozen``: the given grid stays for the whole training, as in the theory; ``dynamic``: the quantizer chooses
        scale and zero point again from the latent weight at every step, and no gradient passes through that choice.
    gradient : str
        ``identity``: the gradient passes unchanged, as in the theory; ``masked``: clipped weights, and clipped inputs
        where the quantizer has `activations`, get none.
    """

    sources: ClassVar[tuple[str, ...]] = (
        *QuantizationAwareTraining.sources,
        "qbench.quant.qparams",
        "qbench.quantizers.layout",
    )

    shared_among_ranks: ClassVar[bool] = True

    scale: Literal["frozen", "dynamic"] = "frozen"
    gradient: Literal["identity", "masked"] = "identity"

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why a grid cannot be chosen again in training, where it is to be; see `Spec.refuses_grid`."""
        if self.scale == "dynamic" and getattr(quantizer, "sees_inputs", False):
            return f"scale: dynamic chooses the grid from the weights alone, and {quantizer.name} needs inputs too"
        kind = getattr(getattr(quantizer, "granularity", None), "kind", None)
        if self.scale == "dynamic" and self.ranks > 1 and kind == "per_tensor":
            return f"scale: dynamic chooses a scale from the whole weight, and ranks: {self.ranks} shares its rows out"
        return super().refuses_grid(quantizer)

    def solve(self, problem: Problem) -> Solution:
        """Return the nearest codes of the trained latent weights; see `Method.solve`."""
        from qbench.methods.layer_inputs import QuantizedInput
        from qbench.methods.qat import StraightThroughWeight, train

        weights, masked = [StraightThroughWeight(layer, self) for layer in problem.layers], self.gradient == "masked"
        return train(problem, self, weights, lambda layer, params, _: QuantizedInput(layer, params, masked=masked))

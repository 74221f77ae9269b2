"""LSQ: train latent weights and step sizes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import learns_no_scales
from qbench.methods.qat_options import QuantizationAwareTraining
from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution, TargetLayer
    from qbench.quant.activation import InputRange
    from qbench.quant.qparams import QParams


class LearnedStepSize(QuantizationAwareTraining):
    """LSQ (Esser et al., 2020, arXiv:1902.08153) from the given grid; zero points stay as they are.

    Attributes
    ----------
    init : str
        First step sizes: ``grid``, the quantizer's own, or ``lsq``, the paper's ``2 mean|w| / sqrt(quant_max)``.
    gradient_scale : str
        N in the gradient scale ``1 / sqrt(N quant_max)``: ``layer``, all weights of the layer (the paper, and code
        that goes by rows without changing N), or ``step``, the weights that share a step size. With one step size a
        row they differ by the root of the number of rows, which is felt most under SGD.
    step_size_learning_rate : float or None
        Peak rate of the step sizes; None takes `learning_rate` times the layer's mean first step size, which makes
        AdamW's moves of step sizes relative.

    Notes
    -----
    After each update a step size is held at or above 1e-3 of its first value: the paper does not keep it from turning
    negative, which would mirror the grid. An unsigned grid with a zero point has about half of its levels on either
    side of 0, so its ``quant_max`` above is ``2^(b-1) - 1``.

    Where the quantizer has static `activations`, the step sizes of inputs are learned too, one a layer: from the
    calibrated grid, or from ``2 mean|x| / sqrt(Qp)`` with ``init: lsq``; the gradient scale is ``1 / sqrt(N Qp)`` with
    the N features of a token (for a convolution, of a sample) and the Qp levels on the longer side of 0. They are held
    positive, and have a rate, as those of weights. Dynamic ranges are not learned.
    """

    shared_among_ranks: ClassVar[bool] = True

    init: Literal["grid", "lsq"] = "grid"
    gradient_scale: Literal["layer", "step"] = "layer"
    step_size_learning_rate: Annotated[float, Field(gt=0)] | None = None

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why step sizes cannot be learned on a grid; see `Spec.refuses_grid`."""
        return learns_no_scales(self, quantizer) or super().refuses_grid(quantizer)

    def solve(self, problem: Problem) -> Solution:
        """Return the nearest codes of the trained latent weights on the learned grid; see `Method.solve`."""
        from qbench.methods.layer_inputs import QuantizedInput
        from qbench.methods.qat import LearnedInput, LearnedStepWeight, train

        def make_input(layer: TargetLayer, params: QParams | None, seen: InputRange | None) -> QuantizedInput:
            if params is None or seen is None:
                return QuantizedInput(layer)
            return LearnedInput(layer, params, seen, self)

        return train(problem, self, [LearnedStepWeight(layer, self) for layer in problem.layers], make_input)

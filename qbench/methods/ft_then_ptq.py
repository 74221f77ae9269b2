"""Fine-tuning in full precision, then post-training quantization: training that never meets the quantizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.methods.gptq import GPTQ
from qbench.methods.qat_options import TrainingMethod
from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class FineTuningThenPTQ(TrainingMethod):
    """Train as the control `fine_tune` does, then quantize what it found.

    Attributes
    ----------
    ptq : str
        ``rtn``, or ``gptq`` at its defaults, which sees the trained model.
    grid : str
        ``again``: the quantizer chooses its grid from the trained weights, as it does from any weights; ``given``: the
        grid of the weights before training, which is that of all other methods.

    Notes
    -----
    Inputs are quantized once the weights are, and not in training, as after any post-training method.
    """

    sources: ClassVar[tuple[str, ...]] = (
        *TrainingMethod.sources,
        *GPTQ.sources,
        "qbench.methods.fine_tune",
        "qbench.methods.gptq",
        "qbench.methods.trained_weights",
        "qbench.quantizers.layout",
    )

    ptq: Literal["rtn", "gptq"] = "rtn"
    grid: Literal["again", "given"] = "again"

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why a grid cannot be chosen again, where it is to be; see `Spec.refuses_grid`."""
        if self.grid == "again" and getattr(quantizer, "sees_inputs", False):
            return f"grid: again chooses the grid from the weights alone, and {quantizer.name} needs inputs too"
        return None

    def solve(self, problem: Problem) -> Solution:
        """Return the codes of the trained weights; see `Method.solve`."""
        from qbench.methods.trained_weights import TrainedWeight, quantize_trained

        weights = [TrainedWeight(layer, self) for layer in problem.layers]
        return quantize_trained(problem, self, weights, self.control().train(problem, weights))

"""AdaRound (Nagel et al., 2020, arXiv:2004.10568): options, and how the solver meets the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import Method

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class AdaRound(Method):
    """Learn for each weight whether to round up or down, layer by layer.

    Attributes
    ----------
    iterations : int
        Full-batch Adam steps a layer.
    learning_rate : float
        Adam's rate on the rounding variables V.
    regularization : float
        Weight lambda of ``sum(1 - |2h - 1|^beta)``. It is relative: the reconstruction term is divided by its value
        at rounding to nearest, per weight, so that one lambda serves every bitwidth and layer size.
    beta_start, beta_end : float
        The annealed exponent beta.
    schedule : str
        How beta falls after the warm start: along half a cosine, or linearly.
    warm_start : float
        Share of the iterations without regularization.
    true_sequential : bool
        Whether a layer also sees the quantized layers before it in its own block.

    Notes
    -----
    The input of a layer is that of the already quantized network, the target that of the full-precision one
    ("asymmetric reconstruction"); there is no activation in the loss. The objective then depends on the data only
    through second moments of the inputs, so one matrix product gives its gradient over the whole calibration set.
    A weight is rounded to one of its two neighbours on the grid, never further.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.adaround_solver",
        "qbench.methods.sequential",
        "qbench.methods.stage_error",
        "qbench.quant.affine",
    )

    iterations: Annotated[int, Field(ge=1)] = 150
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    regularization: Annotated[float, Field(ge=0)] = 3.0
    beta_start: Annotated[float, Field(gt=1)] = 20.0
    beta_end: Annotated[float, Field(gt=1)] = 2.0
    schedule: Literal["cosine", "linear"] = "cosine"
    warm_start: Annotated[float, Field(ge=0, lt=1)] = 0.2
    true_sequential: bool = True

    def solve(self, problem: Problem) -> Solution:
        """Return AdaRound's codes of every layer; see `Method.solve`."""
        from qbench.methods.adaround_solver import solve_stage
        from qbench.methods.problem import Solution
        from qbench.methods.sequential import walk

        layers = {}
        for stage in walk(problem, true_sequential=self.true_sequential, full_precision_targets=True):
            found = solve_stage(stage, self)
            for layer in stage.layers:
                layers[layer.name] = found[layer.name]
                layer.write(found[layer.name].weight())
        return Solution(layers, calibration_tokens=problem.calibration_tokens)

"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): options, and how the solver meets the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.methods.base import Method

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class GPTQ(Method):
    """Round column by column and let the columns that are left make up for each error.

    Attributes
    ----------
    percdamp : float
        Share of the Hessian's mean diagonal that is added to its diagonal.
    block_size : int
        Columns that are updated eagerly; the rest is updated once a block. Changes rounding errors only.
    act_order : bool
        Quantize columns by decreasing Hessian diagonal (with the grid fixed beforehand: "static groups").
    true_sequential : bool
        Whether a layer sees the quantized layers before it in its own block.

    Notes
    -----
    Scales come from the full-precision weight and are shared with all other methods. A layer whose Hessian stays
    indefinite after ten-fold increases of the damping up to 1 is rounded to nearest, and its row says so.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.gptq_solver",
        "qbench.methods.sequential",
        "qbench.methods.stage_error",
        "qbench.quant.affine",
    )

    percdamp: Annotated[float, Field(gt=0, le=1)] = 0.01
    block_size: Annotated[int, Field(ge=1)] = 128
    act_order: bool = True
    true_sequential: bool = False

    def solve(self, problem: Problem) -> Solution:
        """Return GPTQ's codes of every layer; see `Method.solve`."""
        from qbench.methods.gptq_solver import solve_stage
        from qbench.methods.problem import Solution
        from qbench.methods.sequential import walk

        layers = {}
        for stage in walk(problem, true_sequential=self.true_sequential, full_precision_targets=False):
            found = solve_stage(stage, percdamp=self.percdamp, block_size=self.block_size, act_order=self.act_order)
            for layer in stage.layers:
                layers[layer.name] = found[layer.name]
                layer.module.weight.data.copy_(found[layer.name].weight())
        return Solution(layers, calibration_tokens=problem.calibration_tokens)

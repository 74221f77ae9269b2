"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): options, and how the solver meets the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qbench.methods.base import Method
from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class GPTQ(Method):
    """Round column by column and let the columns that are left make up for each error.

    Attributes
    ----------
    percdamp : float
        Share of the Hessian's mean diagonal that is added to its diagonal.
    block_size : int
        Columns that receive the errors of all before them in one product. Changes rounding errors only.
    act_order : bool or "group_aware"
        Quantize columns by falling Hessian diagonal; ``group_aware`` keeps the columns of a group together.
    group_scales : str
        Where the scales of groups come from: ``static``, the given grid (chosen from the full-precision weight, as for
        all other methods), or ``fresh``, chosen by the same range rule when the walk comes to the group, from what its
        weights have become. Scales of whole rows or tensors are static.
    true_sequential : bool
        Whether a layer sees the quantized layers before it in its own block.
    inputs : str
        ``quantized``: a block is fed by its quantized predecessors; ``full_precision``: by those of the model as it
        was.
    cd_sweeps : int
        Passes of coordinate descent over all columns afterwards, 0 for GPTQ as published (see
        `qbench.methods.coordinate_descent`).

    Notes
    -----
    A layer whose Hessian stays indefinite after ten-fold increases of the damping up to 1 is rounded to nearest, and
    its row says so. Inputs that are always 0 get a weight of 0. Convolutions have one Hessian a group.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.block_calls",
        "qbench.methods.coordinate_descent",
        "qbench.methods.gptq_scales",
        "qbench.methods.gptq_solver",
        "qbench.methods.gptq_stage",
        "qbench.methods.matrices",
        "qbench.methods.ordered_grid",
        "qbench.methods.sequential",
        "qbench.methods.stage",
        "qbench.methods.stage_error",
        "qbench.methods.stand_in",
        "qbench.quant.block_grid",
    )

    block_by_block: ClassVar[bool] = True

    percdamp: Annotated[float, Field(gt=0, le=1)] = 0.01
    block_size: Annotated[int, Field(ge=1)] = 128
    act_order: Literal[True, False, "group_aware"] = True
    group_scales: Literal["static", "fresh"] = "static"
    true_sequential: bool = False
    inputs: Literal["quantized", "full_precision"] = "quantized"
    cd_sweeps: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.group_scales == "fresh" and self.act_order is True:
            raise ValueError("group_scales fresh needs groups in one piece (allowed: act_order false or group_aware)")
        if self.inputs == "full_precision" and self.true_sequential:
            raise ValueError("inputs full_precision needs true_sequential false: no layer sees a quantized one")
        return self

    def calibrates_on(self) -> Literal["nothing", "quantized", "full_precision"]:
        """Return which blocks feed a block, as `inputs` says."""
        return self.inputs

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why scales cannot be chosen group by group, where they are to be; see `Spec.refuses_grid`."""
        if self.group_scales == "static":
            return None
        granularity = getattr(quantizer, "granularity", None)
        if getattr(granularity, "kind", None) == "per_block":
            return "group_scales: fresh chooses scales row by row, and tiles share theirs among rows"
        if getattr(quantizer, "shares_scale_unit", False):
            return f"group_scales: fresh chooses one group at a time, and {quantizer.name} stores scales by the largest"
        return None

    def solve(self, problem: Problem) -> Solution:
        """Return GPTQ's codes of every layer; see `Method.solve`."""
        from qbench.methods.gptq_stage import solve_stage
        from qbench.methods.problem import Solution
        from qbench.methods.sequential import walk

        layers = {}
        quantized_inputs = self.inputs == "quantized"
        for stage in walk(problem, true_sequential=self.true_sequential, quantized_inputs=quantized_inputs):
            found = solve_stage(stage, self)
            for layer in stage.layers:
                layers[layer.name] = found[layer.name]
                layer.write(found[layer.name].weight())
        return Solution(layers, calibration_tokens=problem.calibration_tokens)

"""Rounding up or down as the quadratic binary problem that it is: AdaRound's objective without its relaxation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qbench.methods.base import Method

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class QuadraticRounding(Method):
    """Lower ``e^T H e`` of each row's rounding error e by coordinate descent (Nagel et al., 2020, equations 7 to 10).

    Attributes
    ----------
    sweeps : int
        The most passes over all columns; it ends early when a pass changes nothing.
    true_sequential : bool
        Whether a layer also sees the quantized layers before it in its own block.
    inputs : str
        ``asymmetric``: a layer's input is that of the quantized network, its target that of the full-precision one;
        ``quantized``: both come from the quantized network; ``full_precision``: both from the full-precision one.

    Notes
    -----
    ``H = E[x x^T]`` of the layer's inputs. Each weight is at one of its two neighbours on the grid, at first at the
    nearer one, and flips where that lowers the error with all others as they are; columns are gone through in turn.
    With asymmetric inputs the error is ``E|W x_fp - Wq x|^2``, which is quadratic too. It ends, unless the sweeps do
    first, where no single flip lowers the error: never above rounding to nearest, and not always at the least of all.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.block_calls",
        "qbench.methods.matrices",
        "qbench.methods.neighbour_descent",
        "qbench.methods.qubo_solver",
        "qbench.methods.sequential",
        "qbench.methods.soft_rounding",
        "qbench.methods.stage",
        "qbench.methods.stage_error",
        "qbench.methods.stand_in",
        "qbench.quant.block_grid",
    )

    sweeps: Annotated[int, Field(ge=1)] = 30
    true_sequential: bool = True
    inputs: Literal["asymmetric", "quantized", "full_precision"] = "asymmetric"

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.inputs == "full_precision" and self.true_sequential:
            raise ValueError("inputs full_precision needs true_sequential false: no layer sees a quantized one")
        return self

    def solve(self, problem: Problem) -> Solution:
        """Return the codes of every layer; see `Method.solve`."""
        from qbench.methods.problem import Solution
        from qbench.methods.qubo_solver import solve_stage
        from qbench.methods.sequential import walk

        layers = {}
        for stage in walk(
            problem,
            true_sequential=self.true_sequential,
            full_precision_targets=self.inputs == "asymmetric",
            quantized_inputs=self.inputs != "full_precision",
        ):
            found = solve_stage(stage, self)
            for layer in stage.layers:
                layers[layer.name] = found[layer.name]
                layer.write(found[layer.name].weight())
        return Solution(layers, calibration_tokens=problem.calibration_tokens)

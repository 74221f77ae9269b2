"""AdaRound (Nagel et al., 2020, arXiv:2004.10568): options, and how the solver meets the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

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
    cd_sweeps : int
        Passes of coordinate descent over the hardened roundings, each weight still at one of its two neighbours; 0 for
        AdaRound as published.
    true_sequential : bool
        Whether a layer also sees the quantized layers before it in its own block.
    inputs : str
        ``asymmetric``: a layer's input is that of the quantized network, its target that of the full-precision one;
        ``quantized``: both come from the quantized network; ``full_precision``: both from the full-precision one.
    objective : str
        ``output``: the error of the layer's output. ``activation``: that behind the activation function which directly
        takes the output, or takes it through a batch norm, which then counts as a part of it. Layers without one are
        solved as under ``output``; the detail ``activation`` is 1 for the others, which are learned on mini-batches
        from there on.
    batch_iterations : int
        Adam steps of a layer that is learned on mini-batches.
    batch_size : int
        Samples (windows, images) of such a mini-batch, with all their positions.
    batch_learning_rate : float
        Adam's rate there.

    Notes
    -----
    Without an activation in the loss the objective depends on the data only through second moments of the inputs, so
    one matrix product gives its gradient over the whole calibration set. A weight is rounded to one of its two
    neighbours on the grid, never further. What h was before it was hardened is in the detail ``unsettled``, the share
    of weights further than 0.05 from 0 and 1.
    """

    version: ClassVar[int] = 2
    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.activations",
        "qbench.methods.adaround_batches",
        "qbench.methods.adaround_solver",
        "qbench.methods.block_calls",
        "qbench.methods.matrices",
        "qbench.methods.neighbour_descent",
        "qbench.methods.sequential",
        "qbench.methods.soft_rounding",
        "qbench.methods.stage",
        "qbench.methods.stage_error",
        "qbench.methods.stand_in",
        "qbench.quant.block_grid",
    )

    iterations: Annotated[int, Field(ge=1)] = 150
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    regularization: Annotated[float, Field(ge=0)] = 10.0
    beta_start: Annotated[float, Field(gt=1)] = 8.0
    beta_end: Annotated[float, Field(gt=1)] = 2.0
    schedule: Literal["cosine", "linear"] = "linear"
    warm_start: Annotated[float, Field(ge=0, lt=1)] = 0.2
    cd_sweeps: Annotated[int, Field(ge=0)] = 10
    true_sequential: bool = True
    inputs: Literal["asymmetric", "quantized", "full_precision"] = "asymmetric"
    objective: Literal["output", "activation"] = "output"
    batch_iterations: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 32
    batch_learning_rate: Annotated[float, Field(gt=0)] = 0.02

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.inputs == "full_precision" and self.true_sequential:
            raise ValueError("inputs full_precision needs true_sequential false: no layer sees a quantized one")
        if self.beta_end > self.beta_start:
            raise ValueError(f"beta falls: beta_end {self.beta_end:g} is above beta_start {self.beta_start:g}")
        return self

    def solve(self, problem: Problem) -> Solution:
        """Return AdaRound's codes of every layer; see `Method.solve`."""
        from qbench.methods.adaround_batches import ActivationSolver
        from qbench.methods.adaround_solver import solve_stage
        from qbench.methods.problem import Solution
        from qbench.methods.sequential import walk

        layers = {}
        stages = walk(
            problem,
            true_sequential=self.true_sequential,
            full_precision_targets=self.inputs == "asymmetric",
            quantized_inputs=self.inputs != "full_precision",
            keep_inputs=self.objective == "activation",
        )
        behind = ActivationSolver(problem, self) if self.objective == "activation" else None
        for stage in stages:
            found = solve_stage(stage, self) if behind is None else behind.solve_stage(stage)
            for layer in stage.layers:
                layers[layer.name] = found[layer.name]
                layer.write(found[layer.name].weight())
        return Solution(layers, calibration_tokens=problem.calibration_tokens)

"""BRECQ (Li et al., 2021, arXiv:2102.05426): options, and the reconstruction of a block by learned rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import Method

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class BRECQ(Method):
    """Learn for each weight whether to round up or down, all layers of a block at once, on the block's output.

    Attributes
    ----------
    iterations : int
        Adam steps a block, a mini-batch each.
    batch_size : int
        Samples (windows, images) a mini-batch.
    learning_rate : float
        Adam's rate on the rounding variables V.
    regularization : float
        Weight lambda of ``sum(1 - |2h - 1|^beta)`` over all weights of the block. It is relative: the reconstruction
        loss is divided by its value at rounding to nearest over all data, per weight of the block.
    beta_start, beta_end : float
        The annealed exponent beta.
    schedule : str
        How beta falls after the warm start: along half a cosine, or linearly.
    warm_start : float
        Share of the iterations without regularization.
    loss : str
        ``mse``: mean squared error of the block's output; ``fisher``: weighted by the squared gradients of the training
        loss with respect to the block's output in the full-precision model, the diagonal of the Fisher information.
    init : str
        Where V starts: ``nearest_fraction``, so that the soft weights are the full-precision ones; ``adaround``, at
        AdaRound's roundings of each layer on its own, each h a quarter away from the middle.

    Notes
    -----
    A block sees the outputs of its quantized predecessors, its target is the output of the full-precision model. In
    each layer's details are ``block_error`` and ``rtn_block_error``, mean squared errors of the block's output in
    float32, with learned rounding and with rounding to nearest, relative to the mean square of the target (with
    ``fisher``, of the weighted errors). The trace ``block_loss/I`` is the loss of block I on each mini-batch relative
    to that of rounding to nearest.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.activations",
        "qbench.methods.adaround",
        "qbench.methods.adaround_batches",
        "qbench.methods.adaround_solver",
        "qbench.methods.block_calls",
        "qbench.methods.block_rounding",
        "qbench.methods.matrices",
        "qbench.methods.neighbour_descent",
        "qbench.methods.reconstruction",
        "qbench.methods.sequential",
        "qbench.methods.soft_rounding",
        "qbench.methods.stage",
        "qbench.methods.stage_error",
        "qbench.methods.stand_in",
        "qbench.methods.working_block",
        "qbench.quant.block_grid",
    )

    iterations: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 2
    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    regularization: Annotated[float, Field(ge=0)] = 100.0
    beta_start: Annotated[float, Field(gt=1)] = 20.0
    beta_end: Annotated[float, Field(gt=1)] = 2.0
    schedule: Literal["cosine", "linear"] = "linear"
    warm_start: Annotated[float, Field(ge=0, lt=1)] = 0.2
    loss: Literal["mse", "fisher"] = "mse"
    init: Literal["nearest_fraction", "adaround"] = "nearest_fraction"

    def solve(self, problem: Problem) -> Solution:
        """Return BRECQ's codes of every layer; see `Method.solve`."""
        from qbench.methods.block_rounding import solve

        return solve(problem, self)

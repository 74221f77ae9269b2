"""Block-AP of EfficientQAT (Chen et al., 2024, arXiv:2407.11062): options, and straight-through training of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import Method, learns_no_scales
from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class BlockAP(Method):
    """Train weights and step sizes by the straight-through estimator, block by block, on the block's output.

    Attributes
    ----------
    epochs : int
        Passes over the calibration data, for each block.
    batch_size : int
        Samples (windows, images) a mini-batch.
    learning_rate : float
        AdamW's first rate on the latent weights, without weight decay. It falls along half a cosine to a twentieth.
    scale_learning_rate : float
        That of the step sizes, likewise; unused where these are not trained.
    train : str
        ``weights``: on the given grid; ``weights_and_scales``: step sizes are learned with the weights. Zero points
        stay as they are.

    Notes
    -----
    Straight-through training with a local loss: what it changes against QAT is the loss, what it changes against BRECQ
    is that a weight may go to any level. A block sees the outputs of its quantized predecessors, its target is the
    output of the full-precision model; clipped weights get no gradient. In each layer's details are ``moved_l1`` (how
    far its latent weights went, relative to their magnitude), and ``block_error`` and ``rtn_block_error``, mean
    squared errors of the block's output in float32, with the trained weights and with rounding to nearest, relative
    to the mean square of the target. The trace ``block_loss/I`` is the loss of block I on each mini-batch relative to
    that of rounding to nearest.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.block_calls",
        "qbench.methods.block_training",
        "qbench.methods.matrices",
        "qbench.methods.reconstruction",
        "qbench.methods.stand_in",
        "qbench.methods.working_block",
        "qbench.quant.block_grid",
        "qbench.quant.fused",
        "qbench.quant.ste",
    )

    epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 2
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    scale_learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    train: Literal["weights", "weights_and_scales"] = "weights_and_scales"

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why step sizes cannot be learned on a grid, where they are to be; see `Spec.refuses_grid`."""
        return learns_no_scales(self, quantizer) if self.train == "weights_and_scales" else None

    def solve(self, problem: Problem) -> Solution:
        """Return Block-AP's codes of every layer; see `Method.solve`."""
        from qbench.methods.block_training import solve

        return solve(problem, self)

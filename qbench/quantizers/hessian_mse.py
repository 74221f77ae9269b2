"""Range rule: the shrunk range with the least rounding error on the layer's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qbench.quantizers.mse import MeanSquaredError

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels
    from qbench.quant.qparams import QParams


class HessianWeightedError(MeanSquaredError):
    """Shrink the full range as `mse` does, and keep the one with the least ``sum E[x_j^2] |w_q - w|^p``.

    Attributes
    ----------
    sees_inputs : bool
        True: ``E[x_j^2]`` is the diagonal of the layer's Hessian, up to a factor.

    Notes
    -----
    With ``p=2`` this is the error of the layer's outputs, were its inputs uncorrelated with mean 0. Ties keep the wider
    range. llama.cpp's importance matrix and SqueezeLLM weigh weights in the same way, the latter by gradients.
    """

    sees_inputs: ClassVar[bool] = True

    def choose_qparams(self, blocks: Tensor, grid: Levels, importance: Tensor | None = None) -> QParams:
        """Return the parameters of the best shrunk range.

        Parameters
        ----------
        blocks : Tensor of shape (n_blocks, block_numel), float32
            Weights that share a scale, a block a row.
        grid : Levels
            The levels to be scaled.
        importance : Tensor of shape (n_blocks, block_numel), optional
            ``E[x_j^2]`` of the input that each weight meets, by default 1.

        Returns
        -------
        QParams
            Scale and zero point of shape (n_blocks, 1).
        """
        from qbench.quantizers.range_search import best_shrunk_range

        return best_shrunk_range(
            blocks, grid, p=self.p, candidates=self.candidates, smallest=self.smallest, importance=importance
        )

"""What every method is: a procedure that picks the quantized weights of a model's layers on grids it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class Deployment(Spec):
    """Base of the specs whose weights are put into a model: what its batch norms are there.

    Attributes
    ----------
    bn : str
        ``keep``: running statistics of the full-precision model, or those that a training ended with;
        ``recalibrate``: estimated again on the calibration images, in the model as it is deployed; ``fold``: each batch
        norm is folded into the layer before it, ahead of everything else, and the folded weights are quantized. See
        `qbench.methods.batch_norm`. `solve` has nothing to do for it: the runner does it before and after.
    """

    bn: Literal["keep", "recalibrate", "fold"] = "keep"


class Method(Deployment):
    """Base of the methods; a subclass adds its options as fields and writes `solve`.

    Attributes
    ----------
    block_by_block : bool
        Whether `solve` may be called once a block, with a problem that holds that block alone and, as calibration data,
        the hidden states that go into it. A model of which one block at a time is in memory takes no other methods.
    """

    block_by_block: ClassVar[bool] = False

    def calibrates_on(self) -> Literal["nothing", "quantized", "full_precision"]:
        """Return what feeds a block that is solved alone: its quantized or its full-precision predecessors, or none."""
        return "quantized"

    def solve(self, problem: Problem) -> Solution:
        """Pick the codes of every target layer.

        Parameters
        ----------
        problem : Problem
            The model, its target layers with their grids, calibration and training data.

        Returns
        -------
        Solution
            Codes and parameters of each layer, with what the method has to say of it.
        """
        raise NotImplementedError


def learns_no_scales(method: Spec, quantizer: Spec) -> str | None:
    """Return why a method cannot learn the step sizes of a quantizer's grids; None where it can."""
    reason: str | None = getattr(quantizer, "fixed_scales", None)
    return (
        None if reason is None else f"{method.name} learns step sizes, and {quantizer.name} has none to learn: {reason}"
    )

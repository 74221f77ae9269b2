"""Fine-tuning in full precision: what the same training gains without a quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from qbench.methods.training_options import WeightTraining

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.methods.latent import LatentWeight
    from qbench.methods.problem import Problem


@dataclass(frozen=True)
class FullPrecisionTraining:
    """What training in full precision used and saw; the weights it found are in the model.

    Attributes
    ----------
    train_tokens, train_steps : int
        Data consumed.
    watched_seconds : float
        What `Problem.watch` took.
    traces : dict of str to list of float
        Curves for the record; ``train_loss`` is the loss before each update, in nats.
    statistics : dict of str to Tensor
        Running statistics of batch-norm layers, by buffer name; empty where they stay as they were.
    """

    train_tokens: int
    train_steps: int
    watched_seconds: float = 0.0
    traces: dict[str, list[float]] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


class FineTuning(WeightTraining):
    """Train the unquantized weights of the target layers: the control that quantization-aware training is read against.

    The loop, the data and their order are those of quantization-aware training. What a quantized model gains in
    training beyond this is recovery; up to this it is what any training of these weights on these data gives.
    """

    shared_among_ranks: ClassVar[bool] = True

    def train(self, problem: Problem, weights: Sequence[LatentWeight] | None = None) -> FullPrecisionTraining:
        """Train the target layers of the problem's model, which keeps the trained weights.

        Parameters
        ----------
        problem : Problem
            Model, loss and training batches.
        weights : sequence of LatentWeight, optional
            One for each target layer, for those who want to know more of them than they do by themselves.

        Raises
        ------
        DivergedError
            The training loss is NaN or infinite.
        """
        from qbench.methods.latent import LatentWeight
        from qbench.methods.training import Training

        given = [LatentWeight(layer) for layer in problem.layers] if weights is None else weights
        training = Training(problem, self, given, problem.loss)
        training.run()
        return FullPrecisionTraining(
            training.tokens,
            training.steps_done,
            training.watched_seconds,
            {"train_loss": training.losses},
            training.statistics(),
        )

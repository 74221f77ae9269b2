"""Options that the methods which train the whole model share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.methods.training_options import WeightTraining


class TrainingMethod(WeightTraining, Method):
    """Base of the methods that train the weights of the whole model on its own loss."""

    def control(self) -> FineTuning:
        """Return full-precision training with the same budget, data, optimizer and schedule."""
        shared = {name: getattr(self, name) for name in WeightTraining.model_fields if name != "name"}
        return FineTuning(name="fine_tune", **shared)


class LatentTraining(TrainingMethod):
    """Base of the methods that train latent weights, of which the nearest levels are deployed.

    Attributes
    ----------
    distillation : float
        Share d of the full-precision model's own predictions in the loss: ``(1 - d) * cross entropy + d *
        KL(full precision || quantized)``, both the mean over positions in nats.

    Notes
    -----
    Where the quantizer has `activations`, the inputs of the target layers go through their quantizer in each training
    step, as they do in evaluation. Static ranges are found on the calibration data before training, in the model with
    the first quantized weights, in one pass with inputs that are not quantized. The full-precision control and the
    model that is distilled from have no quantized inputs.
    """

    sources: ClassVar[tuple[str, ...]] = (
        *WeightTraining.sources,
        "qbench.methods.distillation",
        "qbench.methods.layer_inputs",
        "qbench.methods.oscillation",
        "qbench.methods.qat",
        "qbench.quant.activation",
        "qbench.quant.block_grid",
        "qbench.quant.fused",
        "qbench.quant.grid",
        "qbench.quant.ste",
    )

    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0


class QuantizationAwareTraining(LatentTraining):
    """Base of the methods that train latent weights through the quantizer.

    Attributes
    ----------
    oscillation : str
        What is done about weights whose code keeps jumping back and forth: ``none``; ``track``: the record says how
        many there are; ``freeze``: such a weight is held at its mean code for the rest of the training (Nagel et al.,
        2022, arXiv:2203.11086, section 5.2).
    oscillation_momentum : float
        Weight of the newest step in the running means of oscillations and codes.
    oscillation_threshold : float
        Oscillations a step above which a weight counts as oscillating.
    """

    oscillation: Literal["none", "track", "freeze"] = "none"
    oscillation_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.01
    oscillation_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02

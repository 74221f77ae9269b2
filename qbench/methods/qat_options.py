"""Options that the quantization-aware training methods share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import Method


class QuantizationAwareTraining(Method):
    """Base of the methods that train the latent weights through the quantizer.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_size : int
        Training windows (or images) a step.
    learning_rate : float
        Peak rate of the latent weights.
    optimizer : str
        AdamW with betas (0.9, 0.95), or SGD with momentum 0.9; no weight decay in either.
    schedule : str
        The rate falls to zero along half a cosine, or stays.
    clip_norm : float or None
        Gradient clipping.

    Notes
    -----
    Only the weights of the target layers are trained (float32 latents, from the full-precision weights); embeddings,
    norms and everything else stay as they are, so that all of the recovery is the quantized weights' own.
    """

    sources: ClassVar[tuple[str, ...]] = ("qbench.methods.qat", "qbench.quant.affine", "qbench.quant.ste")

    steps: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 7e-4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0

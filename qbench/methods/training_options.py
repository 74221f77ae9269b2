"""Options of everything that trains weights: the budget, the optimizer and what batch norm does meanwhile."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from qbench.methods.base import Deployment


class WeightTraining(Deployment):
    """Base of the specs that train the weights of the target layers.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_size : int
        Training windows (or images) a step.
    learning_rate : float
        Peak rate of the weights.
    optimizer : str
        AdamW with betas (0.9, 0.95), or SGD with momentum 0.9; no weight decay in either.
    schedule : str
        The rate falls to zero along half a cosine, or stays.
    clip_norm : float or None
        The gradient of a step is scaled down to this norm where it is longer.
    bn_training : str
        ``freeze``: batch-norm layers keep the running statistics of the full-precision model, in training too;
        ``update``: they train on the batch's statistics, and the running ones they end with are deployed, unless `bn`
        has them estimated again.

    Notes
    -----
    Only the weights of the target layers are trained; embeddings, norms (with their scales and shifts) and everything
    else stay as they are, so that all of the recovery is those weights' own. Weights are trained in float32 whatever
    the model's type is: in bfloat16 an update below half the spacing of its neighbours would vanish. No loss scaling is
    done, so gradients of a float16 model may underflow.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.batch_norm",
        "qbench.methods.latent",
        "qbench.methods.matrices",
        "qbench.methods.training",
    )

    steps: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 7e-4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    bn_training: Literal["freeze", "update"] = "freeze"

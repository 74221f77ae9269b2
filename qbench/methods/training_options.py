"""Options of everything that trains weights: the budget, the optimizer and what batch norm does meanwhile."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qbench.methods.base import Deployment
from qbench.spec import Spec


class WeightTraining(Deployment):
    """Base of the specs that train the weights of the target layers.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_size : int
        Training windows (or images) a step.
    learning_rate : float
        Peak rate of the weights; at 0 they stay as they are.
    optimizer : str
        AdamW with betas (0.9, 0.95), or SGD; no weight decay in either.
    momentum : float
        Of SGD; 0 is plain gradient descent.
    schedule : str
        The rate falls to zero along half a cosine, or stays.
    clip_norm : float or None
        The gradient of a step is scaled down to this norm where it is longer.
    bn_training : str
        ``freeze``: batch-norm layers keep the running statistics of the full-precision model, in training too;
        ``update``: they train on the batch's statistics, and the running ones they end with are deployed, unless `bn`
        has them estimated again.
    precision : str
        ``bfloat16``: the model runs under autocast, with its matrix products in bfloat16; latent weights, grids,
        the optimizer and the loss stay in float32. Autocast casts the quantized weights as well: a product sees the
        levels rounded to 8 significant bits.
    gradient_checkpointing : bool
        Keep of each block its input alone, and run the block again in the backward pass: less memory, more time, the
        same gradients.
    accumulation : int
        Parts that a step's windows (or images) go through the model in, one after the other; the gradient is that of
        their mean loss. `batch_size` is the whole step, and must be a multiple.
    optimizer_state : str
        ``8bit``: AdamW keeps its moments in 8 bits with a scale for each 256 numbers (Dettmers et al., 2022,
        arXiv:2110.02861); those of tensors below 4096 numbers stay in float32.
    ranks : int
        Processes that share one training (fully sharded data parallelism): one a GPU, or as many on a CPU. Each has its
        rows of every matrix, with their latent weights and the optimizer's moments, and its part of each step's batch;
        `batch_size` is the whole step, and must be a multiple of ranks times `accumulation`. Sums are in another order
        than in one process.

    Notes
    -----
    Only the weights of the target layers are trained; embeddings, norms (with their scales and shifts) and everything
    else stay as they are, so that all of the recovery is those weights' own. Weights are trained in float32 whatever
    the model's type is: in bfloat16 an update below half the spacing of its neighbours would vanish. No loss scaling is
    done, so gradients of a float16 model may underflow.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.methods.adamw_8bit",
        "qbench.methods.batch_norm",
        "qbench.methods.checkpoints",
        "qbench.methods.latent",
        "qbench.methods.matrices",
        "qbench.methods.oscillation",
        "qbench.methods.qat_options",
        "qbench.methods.sharding",
        "qbench.methods.stand_in",
        "qbench.methods.training",
        "qbench.methods.training_steps",
    )

    shared_among_ranks: ClassVar[bool] = False
    """Whether several processes can share the training: a subclass says so whose every step is one of rows."""

    steps: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(ge=0)] = 7e-4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    bn_training: Literal["freeze", "update"] = "freeze"
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    accumulation: Annotated[int, Field(ge=1)] = 1
    optimizer_state: Literal["float32", "8bit"] = "float32"
    ranks: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _momentum_is_that_of_sgd(self) -> Self:
        default = type(self).model_fields["momentum"].default
        if self.optimizer != "sgd" and self.momentum != default:
            raise ValueError(f"momentum {self.momentum:g} is an option of sgd, given optimizer {self.optimizer}")
        return self

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation {self.accumulation} cuts no batch of {self.batch_size} into equal parts "
                "(allowed: a divisor of batch_size)"
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_equal_shares(self) -> Self:
        if self.ranks > 1 and not self.shared_among_ranks:
            raise ValueError(f"ranks {self.ranks}: {self.name} is trained by one process (allowed: 1)")
        if self.ranks > 1 and self.batch_size % (self.ranks * self.accumulation):
            times = f" times accumulation {self.accumulation}" if self.accumulation > 1 else ""
            raise ValueError(
                f"ranks {self.ranks}{times} cuts no batch of {self.batch_size} into equal parts "
                "(allowed: a divisor of batch_size)"
            )
        return self

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why the ranks cannot share a grid or the quantizer's inputs; see `Spec.refuses_grid`."""
        if self.ranks == 1:
            return None
        if getattr(quantizer, "activations", None) is not None:
            return f"ranks: {self.ranks} trains weights alone, and {quantizer.label()} quantizes inputs too"
        if getattr(getattr(quantizer, "granularity", None), "kind", None) == "per_block":
            return f"ranks: {self.ranks} shares out rows, and tiles of {quantizer.label()} reach over several"
        return None

    @model_validator(mode="after")
    def _eight_bits_are_those_of_adamw(self) -> Self:
        if self.optimizer_state == "8bit" and self.optimizer != "adamw":
            raise ValueError(f"optimizer_state 8bit is an option of adamw, given optimizer {self.optimizer}")
        return self

    @model_validator(mode="after")
    def _batch_norm_sees_a_step_once(self) -> Self:
        if self.bn_training == "update" and (self.accumulation > 1 or self.gradient_checkpointing or self.ranks > 1):
            given = f"accumulation {self.accumulation}" if self.accumulation > 1 else "gradient_checkpointing"
            given = f"ranks {self.ranks}" if self.ranks > 1 else given
            raise ValueError(
                f"{given} and bn_training update: batch norms would not see each step's batch once and whole "
                "(allowed here: bn_training: freeze)"
            )
        return self

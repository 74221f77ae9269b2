"""What every recipe of pretraining has: a budget, a warm-up-stable-decay schedule, AdamW."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Schedule(BaseModel):
    """Warm-up-stable-decay training with AdamW.

    Attributes
    ----------
    steps : int
        All optimizer steps, warm-up and decay included.
    batch_size : int
        Sequences or images a step.
    learning_rate : float
        The constant rate of the stable phase.
    warmup_steps : int
        Steps of the linear rise.
    decay_share : float
        Share of the steps, at the end, in which the rate falls linearly to zero.
    weight_decay, clip_norm, beta1, beta2 : float
        AdamW and gradient clipping; matrices and kernels only are decayed.
    precision : str
        Type of the matrix products, forward and backward; weights and optimizer state are float32 in either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    decay_share: float = 0.25
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def decay_start(self) -> int:
        """The step at which the decay begins; the ``stable`` checkpoint is taken there."""
        return round(self.steps * (1 - self.decay_share))

    @property
    def samples(self) -> int:
        """Sequences or images seen by the end."""
        return self.steps * self.batch_size

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a zero-based step."""
        rise = min(1.0, (step + 1) / self.warmup_steps)
        fall = min(1.0, (self.steps - step) / (self.steps - self.decay_start))
        return self.learning_rate * min(rise, fall)

"""The way of a training: the loss of deployed and latent weights after so many steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qbench.claims.ladders import trace
from qbench.claims.measured import Measured
from qbench.claims.subject import LackingError, Subject
from qbench.claims.thresholds import LATE

# Of one trajectory, in the record of a method that trains.
_PREFIX = "trajectory/"


@dataclass(frozen=True)
class Trajectory:
    """What was measured on the way, entry 0 before any update.

    Attributes
    ----------
    cell : Measured
        The cell whose training it is.
    step : tuple of float
        Updates made.
    deployed, latent, train : tuple of float
        D of Q(w_k) and of w_k held out, and of Q(w_k) on training batches, nats.
    tau, tau_train : tuple of float
        Thresholds of the basin held out and on training batches.
    deployed_se : tuple of float
        Standard errors, nats.
    """

    cell: Measured
    step: tuple[float, ...]
    deployed: tuple[float, ...]
    latent: tuple[float, ...]
    train: tuple[float, ...]
    tau: tuple[float, ...]
    tau_train: tuple[float, ...]
    deployed_se: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Return the learning rate."""
        return float(self.cell.options["learning_rate"])

    @property
    def late(self) -> list[int]:
        """Return the moments of the last fifth of training."""
        return [index for index, step in enumerate(self.step) if step > LATE * self.step[-1]]


def has_trajectory(cell: Measured) -> bool:
    """Return whether a training was looked at on its way."""
    return bool(cell.record.traces.get(_PREFIX + "step"))


def trajectory(subject: Subject, cell: Measured) -> Trajectory:
    """Return the trajectory of a cell.

    Raises
    ------
    LackingError
        It was not looked at on its way.
    """

    def read(name: str) -> tuple[float, ...]:
        return tuple(trace(cell.record, _PREFIX + name))

    deployed_se = read("deployed_se")
    return Trajectory(
        cell=cell,
        step=read("step"),
        deployed=read("deployed"),
        latent=read("latent"),
        train=read("train"),
        tau=tuple(map(subject.tau, deployed_se)),
        tau_train=tuple(map(subject.tau, read("train_se"))),
        deployed_se=deployed_se,
    )


def landscape(cell: Measured, name: str) -> tuple[float, ...]:
    """Return what a landscape measured on the way.

    Raises
    ------
    LackingError
        It was not measured.
    """
    return tuple(trace(cell.record, f"{_PREFIX}valley/{name}"))


def is_plain(options: Mapping[str, Any]) -> bool:
    """Return whether a training is ``w <- w - rate * gradient`` and nothing else."""
    return (
        options.get("optimizer") == "sgd"
        and options.get("momentum") == 0
        and options.get("schedule") == "constant"
        and options.get("clip_norm") is None
        and options.get("learning_rate", 0) > 0
    )


def plain_trajectories(subject: Subject, seed: int, bits: int) -> list[Trajectory]:
    """Return the trajectories of QAT by plain gradient descent, rates rising; of one rate the longest.

    Raises
    ------
    LackingError
        There is none.
    """
    cells = [cell for cell in subject.arms(seed, bits, "ste_qat") if is_plain(cell.options) and has_trajectory(cell)]
    if not cells:
        raise LackingError(f"ste_qat by plain sgd with a trajectory at {bits} bits")
    longest: dict[float, Trajectory] = {}
    for cell in cells:
        one = trajectory(subject, cell)
        if one.rate not in longest or one.step[-1] > longest[one.rate].step[-1]:
            longest[one.rate] = one
    return [longest[rate] for rate in sorted(longest)]


def first_entry(step: Sequence[float], values: Sequence[float], levels: Sequence[float]) -> float:
    """Return the step at which values first are at most their level, infinite where they never are.

    Between the last moment outside and the first inside the step is found by a straight line of the value in the
    logarithm of the step; after step 0 there is no such line, and the first moment inside counts.
    """
    for index, (value, level) in enumerate(zip(values, levels, strict=True)):
        if value <= level:
            if index == 0 or step[index - 1] == 0:
                return step[index]
            before, after = values[index - 1], value
            share = (before - level) / (before - after) if math.isfinite(before) and before > level else 1.0
            return float(step[index - 1] * (step[index] / step[index - 1]) ** share)
    return math.inf

"""Distillation: the quantized model learns what the full-precision model predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import CellError
from qbench.methods.problem import Problem


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return ``KL(teacher || student)`` of logits of shape (positions, classes): the mean over positions, in nats."""
    wanted, found = (functional.log_softmax(logits.float(), dim=-1) for logits in (teacher, student))
    return functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


def distilled_loss(problem: Problem, share: float) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return a training loss with the problem's model, as it is now, as the teacher.

    Parameters
    ----------
    problem : Problem
        Its model is in full precision; a copy of it is kept.
    share : float
        d in ``(1 - d) * cross entropy + d * KL``. At 0 the problem's own loss is returned.

    Raises
    ------
    CellError
        The task gives no predictions.
    """
    if share == 0:
        return problem.loss
    predict = problem.predict
    if predict is None:
        raise CellError(
            f"distillation is {share:g}, but the task has no predict(model, batch) that returns logits and targets "
            "(allowed here: distillation: 0)"
        )
    # A sharded model cannot be copied: its copy was made before.
    teacher = problem.sharding.teacher if problem.sharding is not None else copy.deepcopy(problem.model)
    assert teacher is not None
    teacher.eval().requires_grad_(requires_grad=False)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        logits, targets = predict(model, batch)
        with torch.no_grad():
            wanted, _ = predict(teacher, batch)
        distilled = share * divergence(wanted, logits)
        if share == 1:
            return distilled
        return distilled + (1 - share) * functional.cross_entropy(logits.float(), targets)

    return loss

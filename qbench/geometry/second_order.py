"""What becomes of an error when each column hands its own on to the columns after it, as second-order rounding does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.methods.gptq_scales import column_order
from qbench.methods.gptq_solver import feedback
from qbench.methods.sequential import walk

if TYPE_CHECKING:
    from qbench.methods.problem import Problem

PERCDAMP = 0.01
"""GPTQ's own damping."""


@dataclass(frozen=True)
class HandedOn:
    """How the errors of a layer's columns reach one another.

    Attributes
    ----------
    weights : Tensor of shape (groups, n, n)
        Those of `qbench.methods.gptq_solver.Feedback`, in the order of the columns.
    order : Tensor of shape (groups, n)
        In which columns are quantized.
    works : Tensor of shape (groups,), bool
        Where the Hessian has a Cholesky factor.
    """

    weights: Tensor
    order: Tensor
    works: Tensor

    def spread(self, own: Tensor) -> Tensor:
        """Return the error of the weights when each column's own rounding error is given.

        Parameters
        ----------
        own : Tensor of shape (rows, n)
            What rounding does to each column when its turn comes.

        Returns
        -------
        Tensor of shape (rows, n)

        Notes
        -----
        With W the feedback weights, column j is rounded at ``w_j + sum_{i<j} e_i W_ij``, so that its own error is
        ``u = e W`` and ``e = u W^-1`` (Chee et al., 2023, arXiv:2307.13304, section 5: GPTQ's error is rounding noise
        times the inverse of the factor). That the grid ends somewhere is not in it: weights that the feedback moves
        beyond the last level lose more than they are said to.
        """
        groups = len(self.order)
        stacked = own.view(groups, -1, own.shape[1])
        places = self.order[:, None, :].expand_as(stacked)
        solved = torch.linalg.solve_triangular(
            self.weights, stacked.gather(2, places), upper=True, left=False, unitriangular=True
        )
        found = torch.empty_like(solved).scatter_(2, places, solved)
        return torch.where(self.works[:, None, None], found, stacked).reshape(own.shape)


def handed_on(problem: Problem) -> dict[str, HandedOn]:
    """Return how errors reach one another in every target layer, by layer name.

    Parameters
    ----------
    problem : Problem
        In full precision, with the data that the second moments of inputs are taken on; it stays as it is.
    """
    found: dict[str, HandedOn] = {}
    for stage in walk(problem, true_sequential=False):
        for part, own in zip(stage.parts, stage.places(), strict=True):
            shared = _of_hessian(stage.gram.hessian[own])
            found.update((layer.name, shared) for layer in part)
    return found


def _of_hessian(hessian: Tensor) -> HandedOn:
    order = column_order(hessian, act_order=True, group_size=hessian.shape[1])
    rows = order[:, :, None].expand_as(hessian)
    sorted_ = hessian.gather(1, rows).gather(2, order[:, None, :].expand_as(hessian))
    dead = sorted_.diagonal(dim1=1, dim2=2) == 0
    sorted_.diagonal(dim1=1, dim2=2).masked_fill_(dead, 1.0)
    fed = feedback(sorted_, PERCDAMP)
    return HandedOn(fed.weights, order, ~fed.failed)


def few_of(batches: Sequence[Tensor], tokens_of: Callable[[Tensor], int], tokens: int) -> list[Tensor]:
    """Return the first windows or images of calibration batches that hold so many tokens, at least one of them.

    Parameters
    ----------
    batches : sequence of Tensor
        Of the calibration split.
    tokens_of : callable
        Counts the tokens (or images) of a batch; all rows have as many.
    tokens : int
        How many are wanted; all batches where they have fewer.
    """
    found: list[Tensor] = []
    missing = tokens
    for batch in batches:
        if missing <= 0:
            break
        rows = math.ceil(missing / (tokens_of(batch) / len(batch)))
        found.append(batch[:rows])
        missing -= tokens_of(found[-1])
    return found

"""GPTQ's column-by-column solver.

GPTQ feeds the error of each column forward to the columns that are left. With ``H = R R^T``, R upper triangular, what
column j has received by the time it is rounded is ``sum_{i<j} (w_i - q_i) R_ij / R_jj``: errors against the *original*
weight, times the columns of R divided by their diagonal (Chee et al., 2023, arXiv:2307.13304, section 5, show that this
is GPTQ). So one Cholesky factor of the Hessian is all that is needed, not the factor of its inverse, and what a block
of columns receives from all columns before it is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from qbench.methods.ordered_grid import OrderedGrid

Scales = Callable[[slice, Callable[[], Tensor]], OrderedGrid]
"""``scales(own, current)`` gives the grid of the columns `own`; ``current()``, of shape (stacks, columns, rows), is
what these columns have become when the first of them is about to be rounded."""


@dataclass(frozen=True)
class Feedback:
    """How much of each column's error each later column receives.

    Attributes
    ----------
    weights : Tensor of shape (stacks, n, n)
        ``R_ij / R_jj`` above the diagonal, 1 on it.
    diagonal : Tensor of shape (stacks, n)
        ``R_jj``.
    damping : Tensor of shape (stacks,)
        Share of the mean diagonal that was added to the diagonal.
    shift : Tensor of shape (stacks,)
        What was added to the diagonal.
    failed : Tensor of shape (stacks,), bool
        Where no damping up to 1 made the Hessian positive definite; the weights there mean nothing.
    """

    weights: Tensor
    diagonal: Tensor
    damping: Tensor
    shift: Tensor
    failed: Tensor

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``v^T H v``, with the Hessian as it was before damping.

        Parameters
        ----------
        vectors : Tensor of shape (stacks, n, rows)
            A vector v a row, transposed.

        Returns
        -------
        Tensor of shape (stacks, rows)

        Notes
        -----
        ``|R^T v|^2 - shift |v|^2``: R is triangular, so in strips this takes little more than half the products of
        ``v^T H v``, and these are most of the work of a layer beside GPTQ itself.
        """
        n = vectors.shape[1]
        strip = max(128, -(-n // 8))
        total = vectors.square().sum(dim=1).mul_(-self.shift[:, None])
        for start in range(0, n, strip):
            end = min(start + strip, n)
            part = torch.bmm(self.weights[:, :end, start:end].mT, vectors[:, :end])
            total += part.mul_(self.diagonal[:, start:end, None]).square_().sum(dim=1)
        return total.clamp_(min=0)


def feedback(hessian: Tensor, percdamp: float) -> Feedback:
    """Return the feedback weights of ``H + d mean(diag H) I``.

    Parameters
    ----------
    hessian : Tensor of shape (stacks, n, n)
        Symmetric, with a positive diagonal.
    percdamp : float
        The first d to be tried; each failure makes it ten times larger, up to 1.
    """
    mean = hessian.diagonal(dim1=1, dim2=2).mean(dim=1)
    damping = torch.full_like(mean, percdamp)
    while True:
        # R = J L J, with L the lower factor of J H J and J the reversal of the order.
        damped = hessian.flip(1, 2)
        damped.diagonal(dim1=1, dim2=2).add_((damping * mean)[:, None])
        # LAPACK works by columns: of a symmetric matrix the transpose is the same, and needs no rearranging.
        lower, status = torch.linalg.cholesky_ex(damped.mT)
        failed = (status > 0) | ~torch.isfinite(lower.diagonal(dim1=1, dim2=2)).all(dim=1)
        if not (failed & (damping < 1)).any():
            break
        damping = torch.where(failed, (10 * damping).clamp(max=1.0), damping)
    upper = lower.mT.flip(1, 2)  # (J L J)^T, lower triangular and contiguous
    diagonal = upper.diagonal(dim1=1, dim2=2).clone()
    return Feedback(upper.div_(diagonal[..., None]).mT, diagonal, damping, damping * mean, failed)


def gptq_values(weight: Tensor, scales: Scales, weights: Tensor, blocks: Sequence[int]) -> Tensor:
    """Quantize matrices column by column (Algorithm 1 of the paper).

    Parameters
    ----------
    weight : Tensor of shape (stacks, n, rows)
        Transposed: columns lie together in memory, in the order in which they are to be quantized.
    scales : callable
        See `Scales`; asked once a block.
    weights : Tensor of shape (stacks, n, n)
        Of `Feedback`, in the same order.
    blocks : sequence of int
        Widths, in order. The columns of a block receive what all earlier columns feed forward in one product; their
        own exchange goes column by column. With fixed scales the widths change rounding errors only.

    Returns
    -------
    Tensor of shape (stacks, n, rows)
        Values in units of the scale, transposed likewise; see `qbench.quant.snapping`.

    Notes
    -----
    ``2 * rows * n^2 / 2`` multiply-adds a matrix beside the ``n^3 / 3`` of the factor.
    """
    values, errors = torch.empty_like(weight), torch.empty_like(weight)
    start = 0
    for width in blocks:
        own = slice(start, start + width)
        within = weights[:, own, own]
        received = torch.bmm(weights[:, :start, own].mT, errors[:, :start])
        grid = scales(own, partial(_compensated, weight[:, own], within, received))
        current = received.add_(weight[:, own])
        block_errors = errors[:, own]
        columns = zip(
            *(part.unbind(1) for part in (weight[:, own], current, values[:, own], block_errors, within.mT)),
            grid.by_column(width),
            strict=True,
        )
        for column, (original, w, value, error, received, (step, snapping)) in enumerate(columns):
            if column:
                _receive(w, received[:, :column], block_errors[:, :column])
            snapping.snap(torch.div(w, step, out=value), out=value)
            torch.addcmul(original, value, step, value=-1, out=error)
        start += width
    return values


def _compensated(weight: Tensor, within: Tensor, received: Tensor) -> Tensor:
    """Return what the columns of a block have become before the first of them is rounded.

    That is the least-squares answer of all of them to the errors so far, ``w + e R_FB R_BB^-1``. What a column has
    received by the time it is rounded itself also holds the answer to the errors of its block.
    """
    answer: Tensor = torch.linalg.solve_triangular(within.mT, received, upper=False, unitriangular=True)
    return weight + answer


def _receive(w: Tensor, received: Tensor, errors: Tensor) -> None:
    """Add to a column, of shape (stacks, rows), what the `errors` before it, (stacks, k, rows), feed it."""
    if len(w) == 1:
        w[0].addmv_(errors[0].T, received[0])
    else:
        w[:, None].baddbmm_(received[:, None], errors)

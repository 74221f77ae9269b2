"""Coordinate descent on codes: each weight in turn goes to its best level while all others stay.

The layer error of a row, with e = w - q and H = E[x x^T], is ``e^T H e``. With all other weights fixed it is a parabola
in e_j whose minimum lies at ``e_j - (H e)_j / H_jj``, so the best level is the one nearest to ``q_j + (H e)_j / H_jj``
(QuantEase: Behdin et al., 2023, arXiv:2309.01885, lemma 1; CDQuant: Nair and Suggala, 2024, arXiv:2406.17542). No step
can raise the error. Unlike AdaRound a weight may go to any level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qbench.methods.ordered_grid import OrderedGrid


def descend(
    weight: Tensor, values: Tensor, hessian: Tensor, grid: OrderedGrid, *, sweeps: int, block_size: int
) -> Tensor:
    """Lower ``tr((W - Q) H (W - Q)^T)`` from given levels, cyclically over the columns.

    Parameters
    ----------
    weight, values : Tensor of shape (stacks, n, rows)
        W and the first values of Q in units of the scale, transposed: columns lie together in memory.
    hessian : Tensor of shape (stacks, n, n)
        H, undamped. Columns with a diagonal of 0 stay as they are.
    grid : OrderedGrid
        The grid.
    sweeps : int
        The most passes over all columns; ends early when a pass changes nothing.
    block_size : int
        Columns that see the changes of all others in one product, and of one another column by column. Changes
        rounding errors only.

    Returns
    -------
    Tensor of shape (stacks, n, rows)
        Values whose error is not above that of the given ones.

    Notes
    -----
    A sweep is ``rows * n^2`` multiply-adds a matrix, twice those of GPTQ.
    """
    n = weight.shape[1]
    values = values.clone()
    errors = grid.errors(weight, values)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    alive = diagonal > 0
    # (H e)_j / H_jj for all j at once; an input that is always 0 asks for no change.
    pull = torch.where(alive[..., None], hessian / diagonal.masked_fill(~alive, 1.0)[..., None], 0.0)
    for _ in range(sweeps):
        before = values.clone()
        for start in range(0, n, block_size):
            own = slice(start, min(start + block_size, n))
            wanted = torch.bmm(pull[:, own], errors)
            changes = torch.zeros_like(wanted)
            levels = grid.columns(own).by_column(own.stop - start)
            for column, (step, snapping) in enumerate(levels):
                at = start + column
                target = wanted[:, column]
                if column:
                    between = pull[:, at, None, start:at]
                    target = torch.baddbmm(target[:, None], between, changes[:, :column])[:, 0]
                now = values[:, at]
                target = now + target / step
                best = snapping.snap(target, out=target)
                torch.mul(now - best, step, out=changes[:, column])  # e_j rises by what q_j falls
                now.copy_(best)
            errors[:, own] += changes
        if torch.equal(before, values):
            break
    return values

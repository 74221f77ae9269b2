"""Coordinate descent between the two neighbours of each weight on its grid, on the layer error."""

from __future__ import annotations

import torch
from torch import Tensor

from qbench.methods.soft_rounding import Neighbours

# Columns that see the changes of all others in one product, and of one another column by column.
_BLOCK = 128


def descend(codes: Tensor, between: Neighbours, wanted: Tensor, hessian: Tensor, *, sweeps: int) -> Tensor:
    """Lower ``E|W x_fp - Wq x|^2``, cyclically over the columns, each weight at one of its two neighbours.

    Parameters
    ----------
    codes : Tensor of shape (stacks, rows, n)
        The first codes of Wq.
    between : Neighbours
        What each weight may become.
    wanted : Tensor of shape (stacks, rows, n)
        ``W E[x_fp x^T]``.
    hessian : Tensor of shape (stacks, n, n)
        ``E[x x^T]``. Columns with a diagonal of 0 stay as they are.
    sweeps : int
        The most passes over all columns; ends early when a pass changes nothing.

    Returns
    -------
    Tensor of shape (stacks, rows, n)
        Codes whose error is not above that of the given ones.

    Notes
    -----
    The error as a function of one weight q_j alone is a parabola with its bottom at ``q_j + r_j / H_jj``, where ``r = W
    E[x_fp x^T] - Wq H``; the better neighbour is the nearer one. A sweep is ``rows * n^2`` multiply-adds a matrix.
    """
    n = codes.shape[2]
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    inverse = torch.where(diagonal > 0, 1 / diagonal, 0.0)[..., None]
    pull = hessian * inverse
    # Transposed: columns lie together in memory.
    low = between.base.mT.contiguous()
    high = low + between.rise.mT
    middle = low.lerp(high, 0.5)
    value = torch.where((codes == between.up).mT, high, low)
    goal = (wanted.mT * inverse).contiguous()
    for _ in range(sweeps):
        before = value.clone()
        for start in range(0, n, _BLOCK):
            own = slice(start, min(start + _BLOCK, n))
            bottom = torch.baddbmm(goal[:, own], pull[:, own], value, alpha=-1).add_(value[:, own])
            changes = torch.zeros_like(bottom)
            for place in range(own.stop - start):
                at, target = start + place, bottom[:, place]
                if place:
                    target = torch.baddbmm(target[:, None], pull[:, at, None, start:at], changes[:, :place], alpha=-1)
                    target = target[:, 0]
                best = torch.where(target > middle[:, at], high[:, at], low[:, at])
                torch.sub(best, value[:, at], out=changes[:, place])
                value[:, at] = best
        if torch.equal(before, value):
            break
    return torch.where((value > middle).mT, between.up, between.down)

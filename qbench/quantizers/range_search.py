"""Search for the shrunk range with the least rounding error, on any levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbench.quant.qparams import QParams, ends_of

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.levels import Levels


def best_shrunk_range(
    blocks: Tensor,
    grid: Levels,
    *,
    p: float = 2.0,
    candidates: int = 80,
    smallest: float = 0.2,
    importance: Tensor | None = None,
) -> QParams:
    """Shrink the full range in even steps and keep, block by block, the one with the least rounding error.

    Parameters
    ----------
    blocks : Tensor of shape (n_blocks, block_numel)
        Weights that share a scale, a block a row.
    grid : Levels
        The levels to be scaled.
    p : float
        The norm: the error of a block is ``sum h |w_q - w|^p``.
    candidates : int
        Ranges tried: the full one, and ``candidates - 1`` smaller ones at even distances.
    smallest : float
        The range that the steps lead to (itself not tried), as a share of the full one.
    importance : Tensor of shape (n_blocks, block_numel), optional
        h, by default 1.

    Returns
    -------
    QParams
        Ties keep the wider range.
    """
    low, high = ends_of(blocks)
    best = QParams.from_range(low, high, grid)
    least = rounding_error(blocks, best, grid, p, importance)
    for step in range(1, candidates):
        share = 1 - step * (1 - smallest) / candidates
        candidate = QParams.from_range(low * share, high * share, grid)
        error = rounding_error(blocks, candidate, grid, p, importance)
        better = error < least
        least = error.where(better, least)
        scale = candidate.scale.where(better, best.scale)
        best = QParams(scale, candidate.zero_points().where(better, best.zero_points()))
    return best


def rounding_error(
    blocks: Tensor, params: QParams, grid: Levels, p: float = 2.0, importance: Tensor | None = None
) -> Tensor:
    """Return ``sum h |w_q - w|^p`` of each block.

    Parameters
    ----------
    blocks : Tensor of shape (n_blocks, block_numel)
        w, a block a row.
    params : QParams
        Where the levels lie.
    grid : Levels
        The levels.
    p : float
        The norm.
    importance : Tensor of shape (n_blocks, block_numel), optional
        h, by default 1.

    Returns
    -------
    Tensor of shape (n_blocks, 1)
    """
    positions = blocks / params.scale
    nearest = grid.snapping(params.zero_points()).snap(positions, out=positions)
    difference = nearest.mul_(params.scale).sub_(blocks)
    # pow is an order of magnitude slower than a product
    powered = difference.square_() if p == 2 else difference.abs_().pow_(p)
    if importance is not None:
        powered.mul_(importance)
    return powered.sum(dim=1, keepdim=True)

"""K-means in one dimension, of many rows at once.

In a sorted row the weights that go to one level lie together. With the sums of the row up to each place, the mean of a
level is a difference of two sums, and an iteration costs a search for each level, not a pass over the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.quant.grid import IntegerGrid
from qbench.quantizers.range_search import best_shrunk_range

_TRIAL = 5


def best_means(blocks: Tensor, bits: int, iterations: int) -> Tensor:
    """Return the means of each row from the best of three starts; see `qbench.quantizers.kmeans.KMeans`.

    Parameters
    ----------
    blocks : Tensor of shape (rows, columns)
        Weights that share levels, a row each.
    bits : int
        There are 2^bits means.
    iterations : int
        At most so many.

    Returns
    -------
    Tensor of shape (rows, 2^bits)
        Rising in each row; on the device and in the type of `blocks`.
    """
    rows, count = _SortedRows.of(blocks), 2**bits
    best, least = rows.weights[:, :1], rows.weights.new_full((1, 1), torch.inf)
    for start in (rows.quantiles(count), rows.even_parts(count), _integers(blocks, bits)):
        # A few iterations tell which start is the best.
        found = rows.lloyd(start, min(iterations, _TRIAL))
        error = rows.error(found)
        best = torch.where(error < least, found, best)
        least = least.minimum(error)
    return rows.lloyd(best, max(iterations - _TRIAL, 0)).to(blocks.device, blocks.dtype)


def _integers(blocks: Tensor, bits: int) -> Tensor:
    """Return the levels that the quantizer `mse` has by default."""
    grid = IntegerGrid(bits, symmetric=True)
    codes = torch.arange(grid.quant_min, grid.quant_max + 1, device=blocks.device)
    return (best_shrunk_range(blocks, grid).scale * codes).double().cpu()


@dataclass(frozen=True)
class _SortedRows:
    """Rows of rising weights, with the sums of each row up to each place: (rows, columns) and (rows, columns + 1)."""

    weights: Tensor
    sums: Tensor

    @classmethod
    def of(cls, blocks: Tensor) -> _SortedRows:
        # On the CPU, since cumulative sums on an accelerator need not come out the same twice.
        weights = blocks.double().cpu().sort(dim=1).values
        return cls(weights, torch.nn.functional.pad(weights.cumsum(dim=1), (1, 0)))

    def quantiles(self, count: int) -> Tensor:
        columns = self.weights.shape[1]
        places = ((torch.arange(count) + 0.5) / count * columns).long()
        return self.weights[:, places]

    def even_parts(self, count: int) -> Tensor:
        low, high = self.weights[:, :1], self.weights[:, -1:]
        return low + (high - low) * ((torch.arange(count, dtype=torch.float64) + 0.5) / count)

    def lloyd(self, levels: Tensor, iterations: int) -> Tensor:
        """Move levels to the means of their weights, until none moves."""
        before: Tensor | None = None
        for _ in range(iterations):
            ends = self._ends(levels)
            if before is not None and torch.equal(ends, before):
                break
            before = ends
            levels = self._means(ends, levels)
        return levels

    def _means(self, ends: Tensor, levels: Tensor) -> Tensor:
        """Return the mean weight of each level; one without weights stays where it is."""
        counts, last = ends.diff(dim=1), self.weights.shape[1] - 1
        lowest = self.weights.gather(1, ends[:, :-1].clamp(max=last))
        highest = self.weights.gather(1, (ends[:, 1:] - 1).clamp(min=0))
        # A small difference of large sums may lie beside the weights that it is the mean of.
        means = (self._sums_between(ends) / counts.clamp(min=1)).maximum(lowest).minimum(highest)
        return torch.where(counts > 0, means, levels)

    def error(self, levels: Tensor) -> Tensor:
        """Return the squared error of each row up to the sum of its squares, of shape (rows, 1)."""
        ends = self._ends(levels)
        parts = levels * (levels * ends.diff(dim=1) - 2 * self._sums_between(ends))
        return parts.sum(dim=1, keepdim=True)

    def _ends(self, levels: Tensor) -> Tensor:
        """Return the places where the weights of each level begin, and where the last ends: (rows, count + 1)."""
        middles = (levels[:, 1:] + levels[:, :-1]) / 2
        inner = torch.searchsorted(self.weights, middles, side="right")
        return torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0)), (0, 1), value=self.weights.shape[1])

    def _sums_between(self, ends: Tensor) -> Tensor:
        return self.sums.gather(1, ends).diff(dim=1)

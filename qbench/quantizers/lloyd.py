"""K-means in one dimension, of many rows at once.

In a sorted row the weights that go to one level lie together. With the sums of the row up to each place, the mean of a
level is a difference of two sums, and an iteration costs a search for each level, not a pass over the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams

# As the quantizer mse, by default: 80 ranges, in steps of 1 %.
_SHARES = [1 - step / 100 for step in range(80)]


def best_means(blocks: Tensor, bits: int, iterations: int) -> Tensor:
    """Return the better of two sets of means in each row; see `qbench.quantizers.kmeans.KMeans`.

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
    rows = _SortedRows.of(blocks)
    found = [rows.lloyd(start, iterations) for start in (rows.quantiles(2**bits), rows.shrunk_integers(bits))]
    errors = [rows.error(levels) for levels in found]
    best = torch.where(errors[1] < errors[0], found[1], found[0])
    return best.to(blocks.device, blocks.dtype)


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

    def shrunk_integers(self, bits: int) -> Tensor:
        """Return the levels of the symmetric integers on the range with the least error."""
        grid = IntegerGrid(bits, symmetric=True)
        codes = torch.arange(grid.quant_min, grid.quant_max + 1, dtype=torch.float64)
        low, high = self.weights[:, :1], self.weights[:, -1:]
        full = QParams.from_range(low, high, grid).scale
        best, least = full, self.error(full * codes)
        for share in _SHARES[1:]:
            error = self.error(full * share * codes)
            best = torch.where(error < least, full * share, best)
            least = least.minimum(error)
        return best * codes

    def lloyd(self, levels: Tensor, iterations: int) -> Tensor:
        """Move levels to the means of their weights, until none moves."""
        before: Tensor | None = None
        for _ in range(iterations):
            ends = self._ends(levels)
            if before is not None and torch.equal(ends, before):
                break
            before = ends
            counts = ends.diff(dim=1)
            levels = torch.where(counts > 0, self._sums_between(ends) / counts.clamp(min=1), levels)
        return levels

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

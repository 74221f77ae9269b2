"""K-means in one dimension, of many rows at once.

In a sorted row the weights that go to one level lie together. With the sums of the row up to each place, the mean of a
level is a difference of two sums, and an iteration costs a search for each level, not a pass over the weights.

Lloyd's iteration stops at the first local minimum. So the places where levels begin are then moved by a search that
looks at all of them at once: each has a window of places, and the best choice of one place from each window is found
by dynamic programming. Some windows hold the places where the levels beside begin, and the middles of those levels: so
a level can vanish at one end of a row while another is split at the other end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.quant.grid import IntegerGrid
from qbench.quantizers.range_search import best_shrunk_range

_TRIAL = 5
_PASSES = 4
_ROWS = 256


def best_means(blocks: Tensor, bits: int, iterations: int) -> Tensor:
    """Return the means of each row that a local search finds; see `qbench.quantizers.kmeans.KMeans`.

    Parameters
    ----------
    blocks : Tensor of shape (rows, columns)
        Weights that share levels, a row each.
    bits : int
        There are 2^bits means.
    iterations : int
        At most so many iterations of Lloyd, and passes over each kind of windows, of which there are at most four.

    Returns
    -------
    Tensor of shape (rows, 2^bits)
        Rising in each row; on the device and in the type of `blocks`.
    """
    # A few rows at a time: what the windows need stays in the cache.
    return torch.cat([_best_of_few_rows(part, bits, iterations) for part in blocks.split(_ROWS)])


def _best_of_few_rows(blocks: Tensor, bits: int, iterations: int) -> Tensor:
    rows, count = _SortedRows.of(blocks), 2**bits
    best, least = rows.weights[:, :1], rows.weights.new_full((1, 1), torch.inf)
    for start in (rows.dense_where_weights_are(count), _integers(blocks, bits)):
        # A few iterations tell which start is the better.
        found = rows.lloyd(start, min(iterations, _TRIAL))
        error = rows.error(found)
        best = torch.where(error < least, found, best)
        least = least.minimum(error)
    best = rows.search(best, min(iterations, _PASSES))
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

    def dense_where_weights_are(self, count: int) -> Tensor:
        """Return levels as dense as the cube root of the weights' density, which is the best of many levels."""
        columns = self.weights.shape[1]
        places = torch.arange(columns)
        below, above = (places - 1).clamp(min=0), (places + 1).clamp(max=columns - 1)
        gaps = (self.weights[:, above] - self.weights[:, below]) / (above - below).clamp(min=1)
        # A weight stands for 1 / density of the line, so for density^(1/3 - 1) of the levels.
        shares = gaps.pow(2 / 3).cumsum(dim=1)
        wanted = shares[:, -1:] * ((torch.arange(count, dtype=torch.float64) + 0.5) / count)
        return self.weights.gather(1, torch.searchsorted(shares, wanted).clamp(max=columns - 1))

    def search(self, levels: Tensor, passes: int) -> Tensor:
        """Return levels of no larger error: ends moved within windows, of wide strides first.

        With each kind of windows a row has at most so many passes; it ends with the first that gains nothing.
        """
        if not passes:
            return levels
        ends, columns, count = self._ends(levels), self.weights.shape[1], levels.shape[1]
        # Fewer places in a window where there are more windows: a pass costs much the same at all bits.
        reach = max(2, int(40 / count**0.5))
        strides = [1]
        while strides[0] * reach * count <= columns:
            strides.insert(0, 2 * strides[0])
        # 0 stands for windows of the ends beside an end; what they find is then refined.
        for stride in (*strides, 0, 1):
            gaining = torch.arange(len(levels))
            for _ in range(passes):
                rows, before = _SortedRows(self.weights[gaining], self.sums[gaining]), ends[gaining]
                offsets = torch.arange(-reach, reach + 1)
                places = before[:, 1:-1, None] + stride * offsets if stride else rows._ends_beside(before, offsets)
                after = rows.best_in_windows(before, places.clamp(0, columns))
                # More than rounding, or ends could move for ever between places that are as good.
                gains = rows._explained(after) > rows._explained(before) * (1 + 1e-12)
                gaining = gaining[gains]
                if not len(gaining):
                    break
                ends[gaining] = after[gains]
        # A level without weights lies at the weight it would begin with, between its neighbours.
        return self._means(ends, self.weights.gather(1, ends[:, :-1].clamp(max=columns - 1)))

    def _ends_beside(self, ends: Tensor, offsets: Tensor) -> Tensor:
        """Return the ends so many half levels beside each inner one: (rows, count - 1, offsets).

        With them a level can be split at its mean, and two others merged, at any distance within the window.
        """
        count = ends.shape[1] - 1
        means = self._sums_between(ends) / ends.diff(dim=1).clamp(min=1)
        middles = torch.searchsorted(self.weights, means).maximum(ends[:, :-1]).minimum(ends[:, 1:])
        halves = torch.cat([torch.stack([ends[:, :-1], middles], dim=2).flatten(1), ends[:, -1:]], dim=1)
        return halves[:, (2 * torch.arange(1, count).unsqueeze(1) + offsets).clamp(0, 2 * count)]

    def best_in_windows(self, ends: Tensor, places: Tensor) -> Tensor:
        """Return the best ends of which each inner one lies at one of its places: (rows, count + 1)."""
        # The first and the last end stay where they are: windows of one place.
        windows = [ends[:, :1], *places.unbind(1), ends[:, -1:]]
        sums = [self.sums.gather(1, window) for window in windows]
        best, choices = self.sums.new_zeros(len(ends), 1), []
        for level in range(len(windows) - 1):
            total = sums[level + 1].unsqueeze(2) - sums[level].unsqueeze(1)
            counts = (windows[level + 1].unsqueeze(2) - windows[level].unsqueeze(1)).double()
            explained = total.square_().div_(counts.clamp(min=1)).masked_fill_(counts < 0, -torch.inf)
            best, choice = explained.add_(best.unsqueeze(1)).max(dim=2)
            choices.append(choice)
        found, chosen = ends.clone(), ends.new_zeros(len(ends), 1)
        for level in range(len(choices) - 1, 0, -1):
            chosen = choices[level].gather(1, chosen)
            found[:, level : level + 1] = windows[level].gather(1, chosen)
        return found

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

    def _explained(self, ends: Tensor) -> Tensor:
        """Return the sum of squares that the means between these ends take off the error, of shape (rows,)."""
        return (self._sums_between(ends).square() / ends.diff(dim=1).clamp(min=1)).sum(dim=1)

    def _sums_between(self, ends: Tensor) -> Tensor:
        return self.sums.gather(1, ends).diff(dim=1)

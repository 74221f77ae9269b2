"""Grids over the inputs of layers: one for a token, a sample or everything, and ranges found on data.

Inputs are matrices here, with a token or a sample a row, and are quantized by the functions of
`qbench.quant.block_grid`, `qbench.quant.fused` and `qbench.quant.ste`, which know nothing of where a matrix comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qbench.quant.block_grid import BlockGrid
from qbench.quant.grid import IntegerGrid
from qbench.quant.qparams import QParams, ends_of

BINS = 1 << 14
"""Bins of a histogram of inputs: 64 in the step of an 8-bit grid over the whole range."""


def dynamic_grid(rows: Tensor, levels: IntegerGrid, *, by_row: bool) -> BlockGrid:
    """Lay a grid over the range of the inputs themselves.

    Parameters
    ----------
    rows : Tensor of shape (rows, columns), float32
        Inputs; at least one.
    levels : IntegerGrid
        The levels to be scaled.
    by_row : bool
        Whether each row has a scale of its own.

    Returns
    -------
    BlockGrid
        With scales of shape (rows, 1) or (1, 1). Two passes over the inputs by row, one otherwise, which read.
    """
    if by_row:
        low, high = ends_of(rows)
    else:
        low, high = (end.view(1, 1) for end in rows.aminmax())
    return grid_of(QParams.from_range(low, high, levels), levels, rows.shape[1])


def grid_of(params: QParams, levels: IntegerGrid, columns: int) -> BlockGrid:
    """Return the grid of inputs with so many columns, from a scale and a zero point of shape (rows or 1, 1)."""
    return BlockGrid(levels, params.scale, params.zero_points(), columns)


def positive_reach(levels: IntegerGrid, zero_point: Tensor) -> float:
    """Return how many levels the longer side of 0 has: LSQ's ``Qp`` of inputs; at least 1.

    Parameters
    ----------
    levels : IntegerGrid
        The levels.
    zero_point : Tensor with one element
        Where 0 lies among them; at 0 an unsigned grid has all of its levels above, as the paper has it behind a ReLU.
    """
    if levels.symmetric:
        return levels.reach
    at = float(zero_point)
    return max(1.0, levels.quant_max - at, at - levels.quant_min)


class InputRange:
    """The smallest and the largest input, and the mean magnitude, of all batches that were added.

    Attributes
    ----------
    low, high : Tensor of shape ()
        Float32; 0 before anything was added.
    """

    def __init__(self) -> None:
        self.low = self.high = torch.zeros(())
        self._magnitude, self._count = torch.zeros((), dtype=torch.float64), 0

    @property
    def is_empty(self) -> bool:
        """Whether there were no inputs."""
        return self._count == 0

    def add(self, x: Tensor) -> None:
        """Take in inputs of any shape and floating-point type: two passes, which read."""
        if x.numel() == 0:
            return
        low, high = (end.float() for end in x.aminmax())
        magnitude = x.abs().sum(dtype=torch.float64)
        if self._count:
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
            magnitude = self._magnitude + magnitude
        self.low, self.high, self._magnitude = low, high, magnitude
        self._count += x.numel()

    def mean_magnitude(self) -> Tensor:
        """Return the mean of ``|x|``, of shape (), float32."""
        return (self._magnitude / max(1, self._count)).float()

    def params(self, levels: IntegerGrid) -> QParams:
        """Return the grid over all of the range: scale and zero point of shape (1, 1)."""
        return QParams.from_range(self.low.view(1, 1), self.high.view(1, 1), levels)


class InputHistogram:
    """How often inputs fall next to each of `BINS` evenly spaced values of a range, both ends among them.

    Parameters
    ----------
    low, high : Tensor of shape ()
        The range, which holds all inputs.

    Attributes
    ----------
    counts : Tensor of shape (BINS,)
        Whole numbers, so that no order of adding matters.
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self._low, self._high = low.double(), high.double()
        self.counts = torch.zeros(BINS, dtype=torch.int64, device=low.device)

    def add(self, x: Tensor) -> None:
        """Take in inputs of any shape and floating-point type."""
        # A range without width has all of its inputs in the first bin.
        width = ((self._high - self._low) / (BINS - 1)).float().clamp(min=torch.finfo(torch.float32).tiny)
        places = x.float().flatten().sub(self._low.float()).div_(width).round_().clamp_(0, BINS - 1)
        self.counts += torch.bincount(places.long(), minlength=BINS)

    def values(self) -> Tensor:
        """Return what the bins stand for, rising, of shape (BINS,), float32, on the CPU."""
        low, high = float(self._low), float(self._high)
        return torch.linspace(low, high, BINS, dtype=torch.float64).float()

    def percentile(self, percentile: float) -> tuple[Tensor, Tensor]:
        """Return the range that holds so many per cent of the inputs: ``[-a, a]``, cut to what was seen.

        Parameters
        ----------
        percentile : float
            At 100 the range is that of all inputs.

        Returns
        -------
        tuple of Tensor of shape (1, 1)
            Lower and upper end, on the CPU.
        """
        values, counts = self.values(), self.counts.cpu()
        sizes, order = values.abs().sort(stable=True)
        below = counts[order].cumsum(0).double()
        place = int(torch.searchsorted(below, below[-1] * percentile / 100))
        reach = sizes[min(place, BINS - 1)]
        return values[0].clamp(min=-reach).view(1, 1), values[-1].clamp(max=reach).view(1, 1)


def pack_input(params: QParams) -> dict[str, Tensor]:
    """Return what the static grid of a layer's inputs is stored as: ``input_scale`` and ``input_zero_point``.

    Parameters
    ----------
    params : QParams
        With one scale and one zero point.

    Returns
    -------
    dict of str to Tensor of shape (1,)
        The scale in float32, the zero point as a whole number of 16 bits.
    """
    return {
        "input_scale": params.scale.detach().float().cpu().reshape(1).contiguous(),
        "input_zero_point": params.zero_points().detach().cpu().reshape(1).to(torch.int16),
    }


def unpack_input(tensors: dict[str, Tensor]) -> QParams:
    """Return the scale and the zero point, in float32 and of shape (1, 1), that `pack_input` was given."""
    return QParams(tensors["input_scale"].view(1, 1), tensors["input_zero_point"].float().view(1, 1))
